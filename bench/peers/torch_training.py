#!/usr/bin/env python3
"""A training step of PyTorch for comparison with `ponder bench`: the same dense shapes, forward + backward + AdamW, f32.

    python3 bench/peers/torch_training.py [--threads 2] [--compile] [--rounds 7]

Llama-like: RMSNorm, fused qkv, scaled_dot_product_attention, SwiGLU of width 8/3 d, heads of 64, vocabulary 4096,
batch 32 x 256. Prints the median tokens per second of each shape.
"""
import argparse
import statistics
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

parser = argparse.ArgumentParser()
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rounds", type=int, default=7)
parser.add_argument("--compile", action="store_true")
args = parser.parse_args()
torch.set_num_threads(args.threads)
VOCAB, BATCH, LENGTH = 4096, 32, 256


class Block(nn.Module):
    def __init__(self, d, width):
        super().__init__()
        self.heads = d // 64
        self.norm1, self.norm2 = nn.RMSNorm(d), nn.RMSNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False)
        self.gate_up, self.down = nn.Linear(d, 2 * width, bias=False), nn.Linear(width, d, bias=False)

    def forward(self, x, cos, sin):
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, 64).permute(2, 0, 3, 1, 4)
        rotate = lambda y: torch.cat((-y[..., 32:], y[..., :32]), -1)
        q, k = q * cos + rotate(q) * sin, k * cos + rotate(k) * sin
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(a.transpose(1, 2).reshape(b, t, d))
        g, u = self.gate_up(self.norm2(x)).chunk(2, -1)
        return x + self.down(F.silu(g) * u)


class Model(nn.Module):
    def __init__(self, d, layers):
        super().__init__()
        width = (8 * d // 3 + 15) // 16 * 16
        self.embed = nn.Embedding(VOCAB, d)
        self.blocks = nn.ModuleList(Block(d, width) for _ in range(layers))
        self.norm, self.head = nn.RMSNorm(d), nn.Linear(d, VOCAB, bias=False)
        angle = torch.arange(LENGTH)[:, None] * 10000.0 ** (-torch.arange(0, 64, 2) / 64)
        self.register_buffer("cos", torch.cat((angle.cos(), angle.cos()), -1))
        self.register_buffer("sin", torch.cat((angle.sin(), angle.sin()), -1))

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return self.head(self.norm(x))


for d, layers in ((256, 6), (512, 8)):
    model = Model(d, layers)
    run = torch.compile(model) if args.compile else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids = torch.randint(0, VOCAB, (BATCH, LENGTH + 1))
    times = []
    for _ in range(args.rounds + 1):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(run(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    print(f"d={d} x {layers}: {BATCH * LENGTH / statistics.median(times[1:]):.0f} tokens/s (torch {torch.__version__}, {args.threads} threads)", flush=True)
