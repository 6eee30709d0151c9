// Every file call of the project: reading, mapping, writing so that a crash leaves the old file or the new one.
//
// Errors carry the path and the system's reason. An input that cannot be read is Exit::data; a disk that is full,
// broken or read-only while writing is Exit::resources; anything else (permissions, a missing folder) is Exit::failure.
//
// Tests make the k-th system call of this file fail (`set_file_fault`, or PONDER_FAULT="enospc@12" in a child process);
// without a plan that costs one relaxed load per call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ponder {

// --- Reading ---------------------------------------------------------------------------------------------------------

inline constexpr size_t kDefaultReadLimit = size_t{1} << 30;

// The whole file (pipes and /dev/stdin too). More than `max_bytes` is an error: the caller knows what is plausible.
std::string read_file(const std::string& path, size_t max_bytes = kDefaultReadLimit);

// The lines of a file of ours that is appended to: each ends in a line break; a torn last one is dropped.
std::vector<std::string> read_whole_lines(const std::string& path, size_t max_bytes = kDefaultReadLimit);

// A file in pieces, for what is larger than memory should hold. Reads past the end return fewer bytes.
class FileReader {
 public:
  explicit FileReader(const std::string& path);
  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  size_t read(void* to, size_t bytes);                      // from the cursor
  size_t read_at(void* to, size_t bytes, uint64_t offset);  // leaves the cursor alone
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int fd_;
};

// A read-only map of a whole file. The size is fixed at open; whoever shortens the file under a map kills its readers.
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(data_), size_}; }
  std::string_view text() const { return {static_cast<const char*>(data_), size_}; }
  size_t size() const { return size_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  void* data_ = nullptr;
  size_t size_ = 0;
};

// Asks the system to read a part of a mapped file from the disk, and does not wait for it.
void want_pages(const void* begin, size_t bytes);
// Lets the system take back the memory of a part of a mapped file, as if it had not been read yet: whole pages only.
void forget_pages(const void* begin, size_t bytes);

// --- Writing ---------------------------------------------------------------------------------------------------------

// A new file written from front to back. `finish` syncs and closes; without it the file is closed unsynced, as a torn
// one (so write into a name that nobody reads yet).
class FileWriter {
 public:
  // Errors name `shown` instead, where it is given: what the user knows of, when `path` is written aside.
  explicit FileWriter(const std::string& path, const std::string& shown = "");
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  void write(const void* data, size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void finish();
  uint64_t written() const { return written_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_, shown_;
  int fd_;
  uint64_t written_ = 0;
};

// Writes aside, syncs, renames, syncs the folder: after a crash the path holds the old bytes or the new ones, and after
// an error (what `write` throws is one) nothing is left aside.
void write_file_atomic(const std::string& path, const std::function<void(FileWriter&)>& write);
void write_file_atomic(const std::string& path, std::string_view bytes);
std::string name_aside(const std::string& path);  // where that writes, in the same folder

// Records at the end of a file, each with one write. What a failed or interrupted write left of a record is cut off
// before the next one is written; for lines that holds across processes too, so a reader only ever meets a torn line at
// the end.
class AppendFile {
 public:
  enum class Format { lines, binary };
  explicit AppendFile(const std::string& path, Format format = Format::lines);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  void append_line(std::string_view line);  // adds the '\n'
  void append(std::string_view record);
  void sync();  // to the disk
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int fd_;
  uint64_t size_ = 0;  // of the whole records
  bool torn_ = false;  // bytes of a torn record may stand behind size_
};

// One line of text that names something else (LATEST, BEST, a version), replaced as a whole.
void write_pointer(const std::string& path, std::string_view text);
std::optional<std::string> read_pointer(const std::string& path);  // nullopt: there is none

// --- Folders and names -----------------------------------------------------------------------------------------------

bool path_exists(const std::string& path);
bool is_folder(const std::string& path);
uint64_t file_size(const std::string& path);
void make_folders(const std::string& path);  // and its parents; fine if they exist
bool make_folder(const std::string& path);   // false: it exists already
void rename_path(const std::string& from, const std::string& to);
void remove_file(const std::string& path);                        // fine if it is absent
void remove_tree(const std::string& path);                        // fine if it is absent; follows no links
void sync_folder(const std::string& path);                        // makes renames and new names in it durable
std::vector<std::string> list_folder(const std::string& path);    // names, sorted, without . and ..
std::vector<std::string> glob_files(const std::string& pattern);  // sorted
uint64_t free_space(const std::string& path);                     // bytes this process may still write there
bool on_network_disk(const std::string& path);  // NFS, SMB, Lustre ..: no shared memory between machines, weak locks

std::string join_path(std::string_view folder, std::string_view name);  // an absolute name wins
std::string parent_folder(std::string_view path);                       // "." for a bare name
std::string base_name(std::string_view path);

// A fresh folder under $TMPDIR, removed with everything in it at the end of the scope.
class TempFolder {
 public:
  explicit TempFolder(std::string_view prefix = "ponder");
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  const std::string& path() const { return path_; }
  std::string file(std::string_view name) const { return join_path(path_, name); }

 private:
  std::string path_;
};

// An exclusive claim on a path, held while the object lives and gone with the process, however it ends.
class FileLock {
 public:
  // nullopt: somebody else holds it.
  static std::optional<FileLock> try_lock(const std::string& path);
  ~FileLock();
  FileLock(FileLock&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  FileLock& operator=(FileLock&&) = delete;

 private:
  explicit FileLock(int fd) : fd_(fd) {}
  int fd_;
};

// --- Fault injection -------------------------------------------------------------------------------------------------

// What happens to the k-th system call made here (counted from 1 since the plan was set; all threads share the count).
struct FileFault {
  enum class Kind { none, enospc, eio, short_write, exit_before, exit_after };
  Kind kind = Kind::none;
  int64_t at = 0;
  bool sticky = false;  // every later call fails too, as on a disk that stays full
};

void set_file_fault(const FileFault& fault);  // {.kind = none} counts calls and fails none
void clear_file_fault();
int64_t file_calls();  // since the plan was set
// "enospc@12", "eio@3+" (sticky), "short@5", "exit@7" (before), "exit_after@7".
FileFault parse_file_fault(std::string_view text);

}  // namespace ponder
