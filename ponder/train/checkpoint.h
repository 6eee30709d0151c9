// Checkpoints: folders from which a run goes on bit for bit. A folder is whole or absent, and every flipped byte in it
// is found before anything is used.
//
//   RUN/checkpoints/step-000400/     config.json, model.safetensors (opens as a model as it stands)
//                                    optimizer.safetensors   AdamW's moments by parameter
//                                    reference/              the reference model, where there is one
//                                    state.json              step, stage, counters, recipe hash, version
//                                    manifest.json           size and XXH3-128 of every file above
//                                    and what the caller adds: tokenizer.json, task.toml
//   RUN/LATEST, RUN/BEST             one line: checkpoints/step-000400
//   RUN/stages/NAME                  likewise: the end of a stage, kept for good
//
// Writing: everything into step-000400.tmp, each file synced; the manifest last; read back and verified; rename; sync
// the parent; LATEST replaced the same way; only then are old folders deleted. Whatever fails on the way (Error,
// resources, where the disk is full) leaves the checkpoints before it as they were.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ponder/model/model.h"
#include "ponder/tensor/tensor_file.h"

namespace ponder::train {

struct CheckpointState {
  int64_t step = 0;        // of the run: the folder's name
  std::string stage;       // the stage's name,
  int64_t stage_step = 0;  // and the steps done in it
  std::string recipe_hash, version;
  std::map<std::string, double> counters;  // whatever else must go on where it stood
};

struct CheckpointContents {
  const model::Model& model;
  std::vector<NamedTensor> optimizer;  // AdamW::state(); empty: none
  const model::Model* reference = nullptr;
  CheckpointState state;
  std::function<void(const std::string& folder)> add_files;  // may be empty
};

// Sizes and hashes against the manifest; throws Error (data) that names the first file that differs. A folder without a
// manifest (a released model) is an error, too.
void verify_checkpoint(const std::string& folder);
CheckpointState read_state(const std::string& folder);

// What RUN/stages/ holds: names of stages, and the checkpoint that ends each.
std::vector<std::pair<std::string, std::string>> stage_ends(const std::string& run_folder);

class CheckpointStore {
 public:
  // `keep` newest ones stay, the best, and those that end a stage. Folders left half-written by an earlier process are
  // removed by `save`.
  CheckpointStore(std::string run_folder, int64_t keep);

  struct Marks {
    bool best = false;       // BEST names it from now on
    bool stage_end = false;  // stages/NAME names it
  };
  // Returns the folder.
  std::string save(const CheckpointContents& contents, const Marks& marks);
  // Names a checkpoint as the last one, and as what `marks` say. `save` ends with it; a run that goes on after a crash calls
  // it again, since the crash may have come between the checkpoint and its names.
  void mark(const CheckpointState& state, const Marks& marks) const;

  // The newest checkpoint that verifies. One that does not is named in a warning and passed over; nullopt: there has
  // never been one; Error (data): there were, and none is whole.
  std::optional<std::string> newest() const;

 private:
  std::string folder(int64_t step) const;
  std::vector<int64_t> steps() const;  // ascending, of whole names
  void remove_old(int64_t newest) const;

  std::string run_;
  int64_t keep_;
};

}  // namespace ponder::train
