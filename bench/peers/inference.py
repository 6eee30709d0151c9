#!/usr/bin/env python3
"""ponder beside llama.cpp and ik_llama.cpp on the same GGUF files and the same threads.

    python3 bench/peers/inference.py --ponder build/release/ponder --llama LLAMA/build/bin --ik IK/build/bin \\
        [--threads 2] [--rounds 3] [--sequences 32] [--json FILE] MODEL.gguf...

Measured are a prompt of 512 tokens, decoding of one sequence, and decoding of several at once (prompts of 64 tokens, 48
generated, tokens a second over the generated ones). The programs take turns, round by round, so that what disturbs the
machine disturbs all; medians count. A peer counts with the better of its settings (ik_llama.cpp: as it is, and with
weights repacked while loading). `ponder model init models/bench-*.toml --random --type TYPE FILE.gguf` makes files.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

PROMPT, BATCH_PROMPT, GENERATED = 512, 64, 48

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("models", nargs="+", metavar="MODEL.gguf")
parser.add_argument("--ponder", required=True, help="the program")
parser.add_argument("--llama", help="folder with llama.cpp's llama-bench and llama-batched-bench")
parser.add_argument("--ik", help="folder with those of ik_llama.cpp")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--sequences", type=int, default=32)
parser.add_argument("--json", help="file for all numbers")
args = parser.parse_args()
args.models = [pathlib.Path(model).resolve() for model in args.models]
args.ponder = pathlib.Path(args.ponder).resolve()
scratch = tempfile.TemporaryDirectory()  # peers leave logs where they run


def run(command, errors=False):
    """What a command prints; with `errors`, on both streams (ik_llama.cpp's table is on stderr)."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=scratch.name)
    if done.returncode != 0:
        print(f"failed ({done.returncode}): {' '.join(map(str, command))}\n{done.stderr[-500:]}", file=sys.stderr)
        return ""
    return done.stdout + (done.stderr if errors else "")


def ponder(model):
    out = run([args.ponder, "bench", model, "--json", "--quiet", "--threads", args.threads, "--prompts", PROMPT,
               "--batches", f"1,{args.sequences}", "--repetitions", 1])
    if not out:
        return {}
    found = json.loads(out)
    speed = {(r["kind"], r["size"]): r["tok_per_s"] for r in found["results"]}
    return {"prompt": speed[("prompt", PROMPT)], "decode": speed[("decode", 1)],
            "batch": speed[("decode", args.sequences)]}


def batch_speed(output):
    """S_TG of llama-batched-bench: a JSON line, or the table of older versions."""
    for line in output.splitlines():
        if line.startswith("{") and "speed_tg" in line:
            return json.loads(line)["speed_tg"]
        cells = [c.strip() for c in line.strip().strip("|").split("|")]
        if len(cells) == 10 and cells[0] == str(BATCH_PROMPT):
            return float(cells[7])
    return None


def peer(folder, bench_flags, batch_flags):
    folder = pathlib.Path(folder).resolve()

    def measure(model):
        speed = {}
        out = run([folder / "llama-bench", "-m", model, "-t", args.threads, "-p", PROMPT, "-n", GENERATED, "-r", 1,
                   "-o", "json", *bench_flags])
        for r in json.loads(out[out.index("["):]) if "[" in out else []:
            speed["decode" if r["n_gen"] else "prompt"] = r["avg_ts"]
        length = args.sequences * (BATCH_PROMPT + GENERATED)
        batch = batch_speed(run([folder / "llama-batched-bench", "-m", model, "-t", args.threads, "-c", length + 64,
                                 "-b", 2048, "-ub", 512, "-npp", BATCH_PROMPT, "-ntg", GENERATED,
                                 "-npl", args.sequences, *batch_flags], errors=True))
        return speed | ({"batch": batch} if batch else {})

    return measure


sides = {"ponder": {"": ponder}}
if args.llama:
    sides["llama.cpp"] = {"": peer(args.llama, [], [])}
if args.ik:
    sides["ik_llama.cpp"] = {"": peer(args.ik, [], []), "repacked": peer(args.ik, ["-rtr", "1"], ["-rtr"])}

works = {"prompt": f"prompt of {PROMPT}", "decode": "decode", "batch": f"decode, {args.sequences} sequences"}
results = []
for model in args.models:
    runs = {}  # (side, setting, work) -> speeds
    for _ in range(args.rounds):
        for side, settings in sides.items():
            for setting, measure in settings.items():
                for work, speed in measure(model).items():
                    runs.setdefault((side, setting, work), []).append(speed)
    for work in works:
        row = {"model": str(model), "work": works[work]}
        for side, settings in sides.items():
            medians = {s: statistics.median(runs[side, s, work]) for s in settings if (side, s, work) in runs}
            if medians:
                best = max(medians, key=medians.get)
                row[side] = {"tok_per_s": medians[best], "setting": best, "runs": runs[side, best, work]}
        others = [row[s]["tok_per_s"] for s in sides if s != "ponder" and s in row]
        if others and "ponder" in row:
            row["ratio"] = row["ponder"]["tok_per_s"] / max(others)
        results.append(row)

if args.json:
    pathlib.Path(args.json).write_text(json.dumps(results, indent=1) + "\n")
print("| model | work | " + " | ".join(sides) + " | ponder / better peer |")
print("|---|---|" + "---|" * (len(sides) + 1))
for row in results:
    cells = [f"{row[s]['tok_per_s']:.1f}" if s in row else "failed" for s in sides]
    ratio = f"{row['ratio']:.2f}" if "ratio" in row else "-"
    print(f"| {pathlib.Path(row['model']).name} | {row['work']} | " + " | ".join(cells) + f" | {ratio} |")
