#include "ponder/base/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <glob.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "ponder/base/error.h"

namespace ponder {
namespace {

// --- The one door to the system --------------------------------------------------------------------------------------

std::atomic<bool> fault_armed{false};
std::mutex fault_mutex;
FileFault fault_plan;
int64_t fault_calls = 0;

// As if killed: no destructors, no flushing, the exit code of `kill -9`.
[[noreturn]] void crash() { _exit(137); }

// The fault of this call, if any. `none` for all but the k-th.
FileFault::Kind next_fault() {
  std::lock_guard lock(fault_mutex);
  ++fault_calls;
  const bool hit = fault_calls == fault_plan.at || (fault_plan.sticky && fault_calls > fault_plan.at);
  return hit ? fault_plan.kind : FileFault::Kind::none;
}

// Runs one system call that returns a negative number and errno on failure; EINTR is tried again.
template <class F>
auto system_call(F f) -> decltype(f()) {
  bool crash_after = false;
  if (fault_armed.load(std::memory_order_relaxed)) [[unlikely]] {
    switch (next_fault()) {
      case FileFault::Kind::enospc: errno = ENOSPC; return -1;
      case FileFault::Kind::eio: errno = EIO; return -1;
      case FileFault::Kind::exit_before: crash();
      case FileFault::Kind::exit_after: crash_after = true; break;
      case FileFault::Kind::none:
      case FileFault::Kind::short_write: break;
    }
  }
  decltype(f()) result;
  do result = f();
  while (result < 0 && errno == EINTR);
  if (crash_after) crash();
  return result;
}

ssize_t write_some(int fd, const char* data, size_t bytes) {
  if (fault_armed.load(std::memory_order_relaxed)) [[unlikely]] {
    const FileFault::Kind kind = next_fault();
    if (kind == FileFault::Kind::enospc || kind == FileFault::Kind::eio) {
      errno = kind == FileFault::Kind::eio ? EIO : ENOSPC;
      return -1;
    }
    if (kind == FileFault::Kind::exit_before) crash();
    // A crash "after" a write leaves half of it, which is the nastier half of what can happen.
    if (kind == FileFault::Kind::short_write || kind == FileFault::Kind::exit_after)
      bytes = std::max<size_t>(1, bytes / 2);
    if (kind == FileFault::Kind::exit_after) {
      [[maybe_unused]] const ssize_t n = ::write(fd, data, bytes);
      crash();
    }
  }
  ssize_t n;
  do n = ::write(fd, data, bytes);
  while (n < 0 && errno == EINTR);
  return n;
}

// Returns 0 or the errno of the first failure.
int write_all(int fd, const char* data, size_t bytes) {
  while (bytes > 0) {
    const ssize_t n = write_some(fd, data, bytes);
    if (n < 0) return errno;
    data += n;
    bytes -= static_cast<size_t>(n);
  }
  return 0;
}

const bool fault_from_environment = [] {
  const char* text = std::getenv("PONDER_FAULT");
  if (!text || !*text) return false;
  try {
    set_file_fault(parse_file_fault(text));
  } catch (const Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    _exit(static_cast<int>(Exit::usage));
  }
  return true;
}();

// --- Errors ----------------------------------------------------------------------------------------------------------

std::string reason(int error) { return std::generic_category().message(error); }

[[noreturn]] void cannot_read(std::string_view what, const std::string& path, int error) {
  const bool ours = error == EMFILE || error == ENFILE || error == ENOMEM;
  throw_error(ours ? Exit::resources : Exit::data, "cannot {} {}: {}", what, path, reason(error));
}

[[noreturn]] void cannot_write(std::string_view what, const std::string& path, int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      throw_error(Exit::resources, "cannot {} {}: {}. Free some space and start again; finished files are intact.",
                  what, path, reason(error));
    case EACCES:
    case EPERM:
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
    case ELOOP:
    case ENAMETOOLONG:
    case EIO:
    case EROFS:
    case EFBIG:
    case EMFILE:
    case ENFILE:
    case ENOMEM: throw_error(Exit::resources, "cannot {} {}: {}", what, path, reason(error));
    default: throw_error(Exit::failure, "cannot {} {}: {}", what, path, reason(error));
  }
}

int open_to_read(const std::string& path) {
  const int fd = system_call([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC); });
  if (fd < 0) cannot_read("open", path, errno);
  return fd;
}

struct stat stat_open(int fd, const std::string& path) {
  struct stat s;
  if (system_call([&] { return ::fstat(fd, &s); }) < 0) {
    const int error = errno;
    ::close(fd);
    cannot_read("examine", path, error);
  }
  if (S_ISDIR(s.st_mode)) {
    ::close(fd);
    throw_error(Exit::data, "cannot read {}: it is a folder", path);
  }
  return s;
}

}  // namespace

// --- Reading ---------------------------------------------------------------------------------------------------------

std::string read_file(const std::string& path, size_t max_bytes) {
  const int fd = open_to_read(path);
  const struct stat s = stat_open(fd, path);
  const auto too_large = [&] {
    ::close(fd);
    throw_error(Exit::data, "cannot read {}: it is larger than the {} bytes allowed here", path, max_bytes);
  };
  if (s.st_size > 0 && static_cast<uint64_t>(s.st_size) > max_bytes) too_large();
  std::string bytes;
  // One byte more than the size says: then the read that meets the end needs no second buffer.
  size_t room = std::min(max_bytes, s.st_size > 0 ? static_cast<size_t>(s.st_size) : size_t{64} << 10) + 1, used = 0;
  for (;;) {
    bytes.resize(room);
    const ssize_t n = system_call([&] { return ::read(fd, bytes.data() + used, room - used); });
    if (n < 0) {
      const int error = errno;
      ::close(fd);
      cannot_read("read", path, error);
    }
    if (n == 0) break;
    used += static_cast<size_t>(n);
    if (used > max_bytes) too_large();
    if (used == room) room = std::min(max_bytes + 1, room * 2);
  }
  ::close(fd);
  bytes.resize(used);
  return bytes;
}

std::vector<std::string> read_whole_lines(const std::string& path, size_t max_bytes) {
  const std::string text = read_file(path, max_bytes);
  std::vector<std::string> lines;
  for (size_t at = 0, end; (end = text.find('\n', at)) != text.npos; at = end + 1)
    lines.push_back(text.substr(at, end - at));
  return lines;
}

FileReader::FileReader(const std::string& path) : path_(path), fd_(open_to_read(path)) { stat_open(fd_, path_); }

FileReader::~FileReader() { ::close(fd_); }

size_t FileReader::read(void* to, size_t bytes) {
  size_t used = 0;
  while (used < bytes) {
    const ssize_t n = system_call([&] { return ::read(fd_, static_cast<char*>(to) + used, bytes - used); });
    if (n < 0) cannot_read("read", path_, errno);
    if (n == 0) break;
    used += static_cast<size_t>(n);
  }
  return used;
}

size_t FileReader::read_at(void* to, size_t bytes, uint64_t offset) {
  size_t used = 0;
  while (used < bytes) {
    const ssize_t n = system_call(
        [&] { return ::pread(fd_, static_cast<char*>(to) + used, bytes - used, static_cast<off_t>(offset + used)); });
    if (n < 0) cannot_read("read", path_, errno);
    if (n == 0) break;
    used += static_cast<size_t>(n);
  }
  return used;
}

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const int fd = open_to_read(path);
  const struct stat s = stat_open(fd, path);
  if (!S_ISREG(s.st_mode)) {
    ::close(fd);
    throw_error(Exit::data, "cannot map {}: it is not a regular file", path);
  }
  size_ = static_cast<size_t>(s.st_size);
  if (size_ > 0) {
    const auto map = [&] {
      data_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
      return data_ == MAP_FAILED ? -1 : 0;
    };
    if (system_call(map) < 0) {
      const int error = errno;
      data_ = nullptr;
      ::close(fd);
      cannot_read("map", path, error);
    }
  }
  ::close(fd);
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(data_, size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void want_pages(const void* begin, size_t bytes) {
  constexpr uintptr_t kPiece = 128 << 10;  // a call reads no more than the disk's read-ahead, which is this at least
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t end = reinterpret_cast<uintptr_t>(begin) + bytes;
  for (uintptr_t at = reinterpret_cast<uintptr_t>(begin) / page * page; at < end; at += kPiece)
    ::madvise(reinterpret_cast<void*>(at), std::min(kPiece, end - at), MADV_WILLNEED);
}

void forget_pages(const void* begin, size_t bytes) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t first = (reinterpret_cast<uintptr_t>(begin) + page - 1) / page * page,
                  last = (reinterpret_cast<uintptr_t>(begin) + bytes) / page * page;
  if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

// --- Writing ---------------------------------------------------------------------------------------------------------

FileWriter::FileWriter(const std::string& path, const std::string& shown)
    : path_(path), shown_(shown.empty() ? path : shown) {
  fd_ = system_call([&] { return ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644); });
  if (fd_ < 0) cannot_write("create", shown_, errno);
}

FileWriter::~FileWriter() {
  if (fd_ >= 0) ::close(fd_);
}

void FileWriter::write(const void* data, size_t bytes) {
  PONDER_CHECK(fd_ >= 0, "write to {} after finish", path_);
  if (const int error = write_all(fd_, static_cast<const char*>(data), bytes)) cannot_write("write", shown_, error);
  written_ += bytes;
}

void FileWriter::finish() {
  PONDER_CHECK(fd_ >= 0, "finish of {} called twice", path_);
  if (system_call([&] { return ::fsync(fd_); }) < 0) cannot_write("sync", shown_, errno);
  const int fd = std::exchange(fd_, -1);
  if (::close(fd) < 0 && errno != EINTR) cannot_write("close", shown_, errno);
}

std::string name_aside(const std::string& path) { return fmt::format("{}.tmp{}", path, ::getpid()); }

void write_file_atomic(const std::string& path, const std::function<void(FileWriter&)>& write) {
  const std::string aside = name_aside(path);
  try {
    FileWriter writer(aside, path);
    write(writer);
    writer.finish();
    rename_path(aside, path);
  } catch (...) {
    ::unlink(aside.c_str());  // as far as that goes: the first error is the one to report
    throw;
  }
  sync_folder(parent_folder(path));
}

void write_file_atomic(const std::string& path, std::string_view bytes) {
  write_file_atomic(path, [&](FileWriter& file) { file.write(bytes); });
}

AppendFile::AppendFile(const std::string& path, Format format) : path_(path) {
  fd_ = system_call([&] { return ::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644); });
  if (fd_ < 0) cannot_write("open", path, errno);
  const uint64_t end = stat_open(fd_, path).st_size;
  size_ = end;
  if (format == Format::binary) return;
  // Looks backwards for the end of the last whole line.
  char buffer[4096];
  while (size_ > 0) {
    const size_t n = static_cast<size_t>(std::min<uint64_t>(sizeof buffer, size_));
    const ssize_t got = system_call([&] { return ::pread(fd_, buffer, n, static_cast<off_t>(size_ - n)); });
    if (got != static_cast<ssize_t>(n)) {
      const int error = got < 0 ? errno : EIO;
      ::close(fd_);
      cannot_read("read", path_, error);
    }
    size_t i = n;
    while (i > 0 && buffer[i - 1] != '\n') --i;
    size_ -= n - i;
    if (i > 0) break;
  }
  torn_ = size_ != end;
}

AppendFile::~AppendFile() { ::close(fd_); }

void AppendFile::append_line(std::string_view line) {
  PONDER_CHECK(line.find('\n') == line.npos, "a line for {} contains a line break", path_);
  std::string whole;
  whole.reserve(line.size() + 1);
  whole.append(line).push_back('\n');
  append(whole);
}

void AppendFile::append(std::string_view bytes) {
  if (torn_) {
    if (system_call([&] { return ::ftruncate(fd_, static_cast<off_t>(size_)); }) < 0)
      cannot_write("repair", path_, errno);
    torn_ = false;
  }
  if (const int error = write_all(fd_, bytes.data(), bytes.size())) {
    torn_ = true;
    cannot_write("write", path_, error);
  }
  size_ += bytes.size();
}

void AppendFile::sync() {
  if (system_call([&] { return ::fdatasync(fd_); }) < 0) cannot_write("sync", path_, errno);
}

void write_pointer(const std::string& path, std::string_view text) {
  PONDER_CHECK(text.find('\n') == text.npos, "the text of {} has a line break", path);
  write_file_atomic(path, fmt::format("{}\n", text));
}

std::optional<std::string> read_pointer(const std::string& path) {
  if (!path_exists(path)) return std::nullopt;
  std::string text = read_file(path, 4096);
  text.resize(std::min(text.size(), text.find('\n')));
  while (!text.empty() && (text.back() == '\r' || text.back() == ' ')) text.pop_back();
  if (text.empty()) throw_error(Exit::data, "{} is empty; it should hold one line, a name", path);
  return text;
}

// --- Folders and names -----------------------------------------------------------------------------------------------

bool path_exists(const std::string& path) {
  struct stat s;
  if (system_call([&] { return ::stat(path.c_str(), &s); }) == 0) return true;
  if (errno != ENOENT && errno != ENOTDIR) cannot_read("examine", path, errno);
  return false;
}

bool is_folder(const std::string& path) {
  struct stat s;
  if (system_call([&] { return ::stat(path.c_str(), &s); }) == 0) return S_ISDIR(s.st_mode);
  if (errno != ENOENT && errno != ENOTDIR) cannot_read("examine", path, errno);
  return false;
}

uint64_t file_size(const std::string& path) {
  struct stat s;
  if (system_call([&] { return ::stat(path.c_str(), &s); }) < 0) cannot_read("examine", path, errno);
  return static_cast<uint64_t>(s.st_size);
}

bool make_folder(const std::string& path) {
  if (system_call([&] { return ::mkdir(path.c_str(), 0755); }) == 0) return true;
  if (errno != EEXIST) cannot_write("create the folder", path, errno);
  return false;
}

void make_folders(const std::string& path) {
  if (path.empty() || is_folder(path)) return;
  const std::string parent = parent_folder(path);
  if (parent != path) make_folders(parent);
  if (!make_folder(path) && !is_folder(path)) cannot_write("create the folder", path, ENOTDIR);
}

void rename_path(const std::string& from, const std::string& to) {
  if (system_call([&] { return ::rename(from.c_str(), to.c_str()); }) < 0)
    cannot_write("rename", fmt::format("{} to {}", from, to), errno);
}

void remove_file(const std::string& path) {
  if (system_call([&] { return ::unlink(path.c_str()); }) < 0 && errno != ENOENT) cannot_write("remove", path, errno);
}

void remove_tree(const std::string& path) {
  struct stat s;
  if (system_call([&] { return ::lstat(path.c_str(), &s); }) < 0) {
    if (errno == ENOENT || errno == ENOTDIR) return;
    cannot_write("remove", path, errno);
  }
  if (!S_ISDIR(s.st_mode)) return remove_file(path);
  for (const std::string& name : list_folder(path)) remove_tree(join_path(path, name));
  if (system_call([&] { return ::rmdir(path.c_str()); }) < 0 && errno != ENOENT) cannot_write("remove", path, errno);
}

void sync_folder(const std::string& path) {
  const int fd = system_call([&] { return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  if (fd < 0) cannot_write("open the folder", path, errno);
  const int result = system_call([&] { return ::fsync(fd); });
  const int error = errno;
  ::close(fd);
  // Some network file systems cannot sync folders and say EINVAL; their renames are durable by other means.
  if (result < 0 && error != EINVAL) cannot_write("sync the folder", path, error);
}

std::vector<std::string> list_folder(const std::string& path) {
  DIR* folder = nullptr;
  if (system_call([&] { return (folder = ::opendir(path.c_str())) ? 0 : -1; }) < 0) cannot_read("list", path, errno);
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(folder)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
    errno = 0;
  }
  const int error = errno;
  ::closedir(folder);
  if (error) cannot_read("list", path, error);
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> glob_files(const std::string& pattern) {
  ::glob_t found{};
  const int result = ::glob(pattern.c_str(), 0, nullptr, &found);
  std::vector<std::string> paths(found.gl_pathv, found.gl_pathv + (result == 0 ? found.gl_pathc : 0));
  ::globfree(&found);
  if (result == GLOB_NOSPACE) throw_error(Exit::resources, "cannot list {}: out of memory", pattern);
  if (result == GLOB_ABORTED) throw_error(Exit::data, "cannot list {}: a folder cannot be read", pattern);
  std::sort(paths.begin(), paths.end());
  return paths;
}

uint64_t free_space(const std::string& path) {
  struct statvfs s;
  if (system_call([&] { return ::statvfs(path.c_str(), &s); }) < 0) cannot_read("examine", path, errno);
  return uint64_t{s.f_bavail} * s.f_frsize;
}

bool on_network_disk(const std::string& path) {
  struct statfs s;
  if (system_call([&] { return ::statfs(path.c_str(), &s); }) < 0) cannot_read("examine", path, errno);
  // From statfs(2): NFS, SMB, CIFS, SMB2, Lustre, GPFS, 9P, AFS, Ceph, FUSE (sshfs and the like).
  static constexpr uint32_t kNetwork[] = {0x6969,     0x517B,     0xFF534D42, 0xFE534D42, 0x0BD00BD0,
                                          0x47504653, 0x01021997, 0x5346414F, 0x00C36400, 0x65735546};
  return std::find(std::begin(kNetwork), std::end(kNetwork), static_cast<uint32_t>(s.f_type)) != std::end(kNetwork);
}

std::string join_path(std::string_view folder, std::string_view name) {
  if (folder.empty() || (!name.empty() && name.front() == '/')) return std::string(name);
  std::string path(folder);
  if (path.back() != '/') path.push_back('/');
  return path.append(name);
}

std::string parent_folder(std::string_view path) {
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  const size_t slash = path.rfind('/');
  if (slash == path.npos) return ".";
  return std::string(path.substr(0, std::max<size_t>(slash, 1)));
}

std::string base_name(std::string_view path) {
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  const size_t slash = path.rfind('/');
  return std::string(slash == path.npos || path.size() == 1 ? path : path.substr(slash + 1));
}

TempFolder::TempFolder(std::string_view prefix) {
  const char* root = std::getenv("TMPDIR");
  path_ = fmt::format("{}/{}-XXXXXX", root && *root ? root : "/tmp", prefix);
  if (!::mkdtemp(path_.data())) cannot_write("create the folder", path_, errno);
}

TempFolder::~TempFolder() {
  try {
    remove_tree(path_);
  } catch (const Error&) {
    // Left behind; a folder under $TMPDIR harms nobody.
  }
}

std::optional<FileLock> FileLock::try_lock(const std::string& path) {
  const int fd = system_call([&] { return ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644); });
  if (fd < 0) cannot_write("open", path, errno);
  if (system_call([&] { return ::flock(fd, LOCK_EX | LOCK_NB); }) == 0) return FileLock(fd);
  const int error = errno;
  ::close(fd);
  if (error != EWOULDBLOCK) cannot_write("lock", path, error);
  return std::nullopt;
}

FileLock::~FileLock() {
  if (fd_ >= 0) ::close(fd_);
}

// --- Fault injection -------------------------------------------------------------------------------------------------

void set_file_fault(const FileFault& fault) {
  std::lock_guard lock(fault_mutex);
  fault_plan = fault;
  fault_calls = 0;
  fault_armed.store(true, std::memory_order_relaxed);
}

void clear_file_fault() { fault_armed.store(false, std::memory_order_relaxed); }

int64_t file_calls() {
  std::lock_guard lock(fault_mutex);
  return fault_calls;
}

FileFault parse_file_fault(std::string_view text) {
  const auto bad = [&] {
    throw_error(Exit::usage,
                "PONDER_FAULT={}: expected kind@k or kind@k+, kind one of enospc, eio, short, exit, exit_after", text);
  };
  FileFault fault;
  const size_t at = text.find('@');
  if (at == text.npos) bad();
  const std::string_view kind = text.substr(0, at);
  std::string_view number = text.substr(at + 1);
  if (kind == "enospc")
    fault.kind = FileFault::Kind::enospc;
  else if (kind == "eio")
    fault.kind = FileFault::Kind::eio;
  else if (kind == "short")
    fault.kind = FileFault::Kind::short_write;
  else if (kind == "exit")
    fault.kind = FileFault::Kind::exit_before;
  else if (kind == "exit_after")
    fault.kind = FileFault::Kind::exit_after;
  else
    bad();
  if (!number.empty() && number.back() == '+') {
    fault.sticky = true;
    number.remove_suffix(1);
  }
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), fault.at);
  if (error != std::errc{} || end != number.data() + number.size() || fault.at < 1) bad();
  return fault;
}

}  // namespace ponder
