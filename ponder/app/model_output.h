// A model that a command writes comes to stand under its name when it is complete, and not before.
//
//   OUT.ponder/     beside OUT, while a command writes it
//     lock          one process at a time
//     part/         what is being written
//     new/          the same, complete; this rename decides that OUT will be the new model
//     old/          what is replaced, until the new model is in place
//
// However the process ends, one of both models is complete: under its name, in new/ or in old/. The next command that
// writes OUT finishes the replacement, or removes what never was complete.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "ponder/base/file.h"

namespace ponder::app {

class ModelOutput {
 public:
  struct Options {
    std::optional<bool> force;  // whether --force was given; nothing: the command has no such option
    std::string source;         // the model that is read, if any: it must not be replaced
    bool split = false;         // OUT.gguf may become OUT-00001-of-0000N.gguf ...
  };
  // OUT is a .gguf file, or a folder. Error (usage): OUT is or holds the source, or is a folder where a file is meant;
  // (data): it is there and may not be replaced; (failure): another process writes it.
  ModelOutput(const std::string& out, const Options& options);
  ~ModelOutput();  // removes what is not complete
  ModelOutput(const ModelOutput&) = delete;
  ModelOutput& operator=(const ModelOutput&) = delete;

  // Where to write: the name of a .gguf file, or an empty folder. Its last part is that of OUT.
  const std::string& aside() const { return aside_; }
  // To be called when all is written. `written` is the file or folder to open, as its writer said (of a split file the
  // first part); returns it as it is called from now on.
  std::string publish(const std::string& written);

 private:
  std::string work(const char* name) const { return join_path(work_, name); }
  std::string place(const std::string& name) const;  // beside OUT
  void lock();
  void check(const Options& options) const;
  bool at_once(const std::vector<std::string>& names) const;
  void put_in_place() const;

  std::string out_, work_, aside_;
  bool gguf_, complete_ = false;
  std::optional<FileLock> lock_;
};

}  // namespace ponder::app
