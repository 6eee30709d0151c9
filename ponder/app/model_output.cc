#include "ponder/app/model_output.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "ponder/base/error.h"
#include "ponder/base/log.h"

namespace ponder::app {
namespace {

namespace fs = std::filesystem;

bool same_file(const std::string& a, const std::string& b) {
  std::error_code none;
  return fs::equivalent(a, b, none);
}

bool empty_folder(const std::string& path) { return is_folder(path) && list_folder(path).empty(); }

// Another disk is mounted on it, so it cannot be renamed.
bool mount_point(const std::string& folder) {
  struct stat own {
  }, above{};
  return ::stat(folder.c_str(), &own) == 0 && ::stat(join_path(folder, "..").c_str(), &above) == 0 &&
         own.st_dev != above.st_dev;
}

// "m" for "m-00001-of-00003.gguf", "" for other names.
std::string stem_of_part(const std::string& name) {
  constexpr std::string_view kForm = "-00000-of-00000.gguf";
  if (name.size() <= kForm.size()) return "";
  const size_t begin = name.size() - kForm.size();
  for (size_t i = 0; i < kForm.size(); ++i) {
    const char c = name[begin + i];
    if (kForm[i] == '0' ? c < '0' || c > '9' : c != kForm[i]) return "";
  }
  return name.substr(0, begin);
}

std::vector<std::string> parts_of(const std::string& folder, const std::string& stem) {
  std::vector<std::string> parts;
  if (stem.empty() || !is_folder(folder)) return parts;
  for (const std::string& name : list_folder(folder))
    if (stem_of_part(name) == stem) parts.push_back(join_path(folder, name));
  return parts;
}

// A link is followed, so that what it names is replaced; "." gets a name.
std::string real_name(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  const std::string last = base_name(path);
  std::error_code none;
  const bool link = fs::is_symlink(path, none);
  if ((last == "." || last == ".." || link) && path_exists(path)) path = fs::canonical(path, none).string();
  return path;
}

}  // namespace

ModelOutput::ModelOutput(const std::string& out, const Options& options)
    : out_(real_name(out)),
      work_(out_ + ".ponder"),
      aside_(join_path(work("part"), base_name(out_))),
      gguf_(out.ends_with(".gguf")) {
  if (is_folder(work_)) {
    for (const std::string& name : list_folder(work_))
      if (name != "lock" && name != "part" && name != "new" && name != "old")
        throw_error(Exit::data, "{} is needed to write {}, but holds {}; move it away", work_, out_, name);
    lock();
    if (is_folder(work("new"))) {
      log_info("{}: finishing what an interrupted command had written", out_);
      put_in_place();
    }
    remove_tree(work_);
    lock_.reset();
  }
  check(options);
  make_folders(work_);
  lock();
  make_folders(gguf_ ? work("part") : aside_);
}

ModelOutput::~ModelOutput() {
  if (complete_) return;
  try {
    remove_tree(work_);
  } catch (const Error&) {
    // The next command that writes OUT removes it.
  }
}

std::string ModelOutput::place(const std::string& name) const {
  return out_.substr(0, out_.size() - base_name(out_).size()) + name;
}

void ModelOutput::lock() {
  auto lock = FileLock::try_lock(work("lock"));
  if (!lock) throw_error(Exit::failure, "{} is being written by another process", out_);
  lock_.emplace(std::move(*lock));
}

void ModelOutput::check(const Options& options) const {
  std::vector<std::string> sources;
  if (!options.source.empty()) {
    sources = parts_of(parent_folder(options.source), stem_of_part(base_name(options.source)));
    sources.push_back(options.source);
    const std::string inside = fs::weakly_canonical(options.source), folder = fs::weakly_canonical(out_);
    if (inside.starts_with(folder + "/")) throw_error(Exit::usage, "{} holds the source itself; name another", out_);
  }
  const auto check_source = [&](const std::string& path) {
    for (const std::string& source : sources)
      if (same_file(source, path))
        throw_error(Exit::usage, "{} is {}; name another", path,
                    sources.size() > 1 ? "a part of the source" : "the source itself");
  };
  const auto refuse = [&](const std::string& path) {
    if (!options.force)
      throw_error(Exit::data, "{} is there already; name a new {} (nothing is overwritten)", path,
                  gguf_ ? "file" : "folder");
    if (!*options.force) throw_error(Exit::data, "{} is there already; name another, or replace it with --force", path);
  };
  check_source(out_);
  if (path_exists(out_)) {
    if (is_folder(out_) == gguf_)
      throw_error(Exit::usage, "{} is {}; name another", out_, gguf_ ? "a folder" : "a file");
    if (!gguf_ && mount_point(out_))
      throw_error(Exit::usage, "{} is a mount point, which cannot be replaced; name a folder in it", out_);
    if (!empty_folder(out_)) {
      refuse(out_);
      if (!gguf_ && !path_exists(join_path(out_, "config.json")))
        throw_error(Exit::data, "{} is no model folder, so --force does not replace it; name another", out_);
    }
  }
  if (!options.split || !gguf_) return;
  const std::string name = base_name(out_);
  for (const std::string& part : parts_of(parent_folder(out_), name.substr(0, name.size() - 5))) {
    check_source(part);
    refuse(part);
  }
}

std::string ModelOutput::publish(const std::string& written) {
  if (!gguf_) sync_folder(aside_);
  sync_folder(work("part"));
  rename_path(work("part"), work("new"));
  complete_ = true;
  sync_folder(work_);
  put_in_place();
  remove_tree(work_);
  return place(base_name(written));
}

// One name that the system replaces in one step: a file, or what is not there or empty.
bool ModelOutput::at_once(const std::vector<std::string>& names) const {
  return names.size() == 1 && place(names[0]) == place(base_name(out_)) &&
         (gguf_ || !path_exists(out_) || empty_folder(out_));
}

// Goes on wherever an earlier call has ended: what is still in new/ is not in place, all else is.
void ModelOutput::put_in_place() const {
  const std::vector<std::string> names = list_folder(work("new"));
  if (!names.empty() && !at_once(names)) {
    make_folders(work("old"));
    std::vector<std::string> replaced = names;
    // A whole file is replaced by parts, too.
    if (gguf_ && names[0] != base_name(out_)) replaced.push_back(base_name(out_));
    for (const std::string& name : replaced) {
      if (!path_exists(place(name))) continue;
      const std::string old = join_path(work("old"), name);
      if (path_exists(old))
        throw_error(
            Exit::data,
            "{} was being replaced when a command was interrupted, and has been made anew since: the other model "
            "is in {}, the one before in {}. Keep what you want, remove {}, and try again",
            place(name), work("new"), work("old"), work_);
      rename_path(place(name), old);
    }
  }
  for (const std::string& name : names) rename_path(join_path(work("new"), name), place(name));
  sync_folder(parent_folder(out_));
  remove_tree(work("new"));
  remove_tree(work("old"));
}

}  // namespace ponder::app
