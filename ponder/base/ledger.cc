#include "ponder/base/ledger.h"

#include <sqlite3.h>

#include <cmath>
#include <map>

#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json_value.h"
#include "ponder/base/log.h"

namespace ponder {
namespace {

// Bumped when a table changes; a ledger of another version is rebuilt by `reindex`.
constexpr int kSchemaVersion = 1;

constexpr const char* kSchema = R"sql(
  CREATE TABLE IF NOT EXISTS runs (
    key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, path TEXT, name TEXT, type TEXT, command TEXT, version TEXT, cpu TEXT,
    seed TEXT, parent TEXT, recipe_hash TEXT, created REAL, ended REAL, end TEXT);
  CREATE TABLE IF NOT EXISTS recipes (run INTEGER, field TEXT, value TEXT, PRIMARY KEY (run, field)) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS tags (key INTEGER PRIMARY KEY, tag TEXT NOT NULL UNIQUE);
  CREATE TABLE IF NOT EXISTS metrics (
    run INTEGER, tag INTEGER, step INTEGER, attempt INTEGER, value REAL, PRIMARY KEY (run, tag, step)) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS samples (
    run INTEGER, step INTEGER, number INTEGER, json TEXT, PRIMARY KEY (run, step, number)) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS eval_items (
    run INTEGER, task TEXT, stamp TEXT, number INTEGER, json TEXT, PRIMARY KEY (run, task, stamp, number)) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS artifacts (
    run INTEGER, path TEXT, kind TEXT, hash TEXT, PRIMARY KEY (run, path)) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS events (run INTEGER, kind TEXT, step INTEGER, attempt INTEGER, time REAL, json TEXT);
  CREATE INDEX IF NOT EXISTS events_of_run ON events (run);
)sql";

constexpr const char* kTablesOfRun[] = {"recipes", "metrics", "samples", "eval_items", "artifacts", "events"};

}  // namespace

struct Ledger::Impl {
  std::string path;
  sqlite3* db = nullptr;
  std::map<std::string, sqlite3_stmt*> statements;
  std::map<std::string, int64_t> run_keys, tag_keys;
  int depth = 0;  // of nested transactions

  [[noreturn]] void fail(int code, const char* what) const {
    // A full or broken disk is the machine's trouble, everything else the file's.
    const bool disk =
        code == SQLITE_FULL || (code & 0xff) == SQLITE_IOERR || code == SQLITE_BUSY || code == SQLITE_READONLY;
    throw_error(disk ? Exit::resources : Exit::data, "ledger {}: {}: {}", path, what,
                db ? sqlite3_errmsg(db) : sqlite3_errstr(code));
  }
  void execute(const char* sql) {
    if (const int code = sqlite3_exec(db, sql, nullptr, nullptr, nullptr); code != SQLITE_OK)
      fail(code, "cannot write");
  }

  ~Impl() {
    for (const auto& [sql, statement] : statements) sqlite3_finalize(statement);
    sqlite3_close(db);
  }
};

namespace {

// One use of a prepared statement: bind in order, step, read columns. Reset at the end of the scope.
template <class Impl>
class Query {
 public:
  Query(Impl& impl, const std::string& sql) : impl_(impl) {
    sqlite3_stmt*& slot = impl.statements[sql];
    if (!slot)
      if (const int code = sqlite3_prepare_v3(impl.db, sql.c_str(), -1, SQLITE_PREPARE_PERSISTENT, &slot, nullptr);
          code != SQLITE_OK)
        impl.fail(code, "cannot read");
    statement_ = slot;
  }
  ~Query() {
    sqlite3_reset(statement_);
    sqlite3_clear_bindings(statement_);
  }
  Query(const Query&) = delete;
  Query& operator=(const Query&) = delete;

  Query& bind(int64_t value) { return check(sqlite3_bind_int64(statement_, ++bound_, value)); }
  Query& bind(double value) {
    return check(std::isfinite(value) ? sqlite3_bind_double(statement_, ++bound_, value)
                                      : sqlite3_bind_null(statement_, ++bound_));
  }
  Query& bind(std::string_view text) {
    return check(sqlite3_bind_text64(statement_, ++bound_, text.data() ? text.data() : "", text.size(),
                                     SQLITE_TRANSIENT, SQLITE_UTF8));
  }
  // True while there are rows.
  bool next() {
    const int code = sqlite3_step(statement_);
    if (code != SQLITE_ROW && code != SQLITE_DONE) impl_.fail(code, "cannot read or write");
    return code == SQLITE_ROW;
  }
  void run() {
    while (next()) {
    }
  }

  int64_t integer(int column) const { return sqlite3_column_int64(statement_, column); }
  double number(int column) const {
    return sqlite3_column_type(statement_, column) == SQLITE_NULL ? std::nan("")
                                                                  : sqlite3_column_double(statement_, column);
  }
  std::string text(int column) const {
    const auto* data = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
    return data ? std::string(data, static_cast<size_t>(sqlite3_column_bytes(statement_, column))) : "";
  }

 private:
  Query& check(int code) {
    if (code != SQLITE_OK) impl_.fail(code, "cannot bind");
    return *this;
  }
  Impl& impl_;
  sqlite3_stmt* statement_ = nullptr;
  int bound_ = 0;
};

// Commits at `commit`, rolls back otherwise. Nested ones are part of the outermost.
template <class Impl>
class Transaction {
 public:
  explicit Transaction(Impl& impl) : impl_(impl) {
    if (impl_.depth++ == 0) {
      try {
        impl_.execute("BEGIN IMMEDIATE");
      } catch (...) {
        --impl_.depth;
        throw;
      }
    }
  }
  void commit() {
    if (impl_.depth == 1) impl_.execute("COMMIT");
    committed_ = true;
  }
  ~Transaction() {
    if (--impl_.depth == 0 && !committed_) {
      sqlite3_exec(impl_.db, "ROLLBACK", nullptr, nullptr, nullptr);
      impl_.run_keys.clear();  // keys of rows that are gone
      impl_.tag_keys.clear();
    }
  }
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;

 private:
  Impl& impl_;
  bool committed_ = false;
};

// The integer that stands for a text; adds it if it is new.
template <class Impl>
int64_t key_of(Impl& impl, std::map<std::string, int64_t>& cache, const char* table, const char* column,
               std::string_view text) {
  if (const auto known = cache.find(std::string(text)); known != cache.end()) return known->second;
  Query(impl, fmt::format("INSERT OR IGNORE INTO {} ({}) VALUES (?)", table, column)).bind(text).run();
  Query query(impl, fmt::format("SELECT key FROM {} WHERE {} = ?", table, column));
  query.bind(text);
  PONDER_CHECK(query.next(), "a row of {} vanished", table);
  return cache[std::string(text)] = query.integer(0);
}

template <class Impl>
int64_t run_key(Impl& impl, std::string_view run) {
  return key_of(impl, impl.run_keys, "runs", "id", run);
}

}  // namespace

Ledger::Ledger(std::string path) : path_(std::move(path)) {}
Ledger::~Ledger() = default;

Ledger::Impl& Ledger::open() {
  if (impl_) return *impl_;
  const std::string folder = parent_folder(path_);
  make_folders(folder);
  auto impl = std::make_unique<Impl>();
  impl->path = path_;
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
  if (const int code = sqlite3_open_v2(path_.c_str(), &impl->db, flags, nullptr); code != SQLITE_OK)
    impl->fail(code, "cannot open");
  sqlite3_busy_timeout(impl->db, 5000);
  impl->execute(on_network_disk(folder) ? "PRAGMA journal_mode = DELETE" : "PRAGMA journal_mode = WAL");
  // WAL with NORMAL survives a crash of the program whole; a power cut may cost the last rows, which reindex restores.
  impl->execute("PRAGMA synchronous = NORMAL");
  {
    Query version(*impl, "PRAGMA user_version");
    const int64_t found = version.next() ? version.integer(0) : 0;
    if (found != 0 && found != kSchemaVersion)
      throw_error(Exit::data, "ledger {} has version {}, this program writes {}; `ponder runs reindex` rebuilds it",
                  path_, found, kSchemaVersion);
  }
  impl->execute(kSchema);
  impl->execute(fmt::format("PRAGMA user_version = {}", kSchemaVersion).c_str());
  impl_ = std::move(impl);
  return *impl_;
}

// --- Writing ---------------------------------------------------------------------------------------------------------

namespace {
std::vector<FlatValue> recipe_of(const RunDir& run) {
  const std::string path = run.file("recipe.toml");
  return path_exists(path) ? flat_values_of_toml(run.recipe(), path) : std::vector<FlatValue>{};
}
}  // namespace

void Ledger::add_run(const RunDir& run) { add_run(run, recipe_of(run)); }

void Ledger::add_run(const RunDir& run, std::span<const FlatValue> recipe) {
  Impl& impl = open();
  Transaction transaction(impl);
  const RunInfo& info = run.info();
  const int64_t key = run_key(impl, run.id());
  Query(impl,
        "UPDATE runs SET path = ?, name = ?, type = ?, command = ?, version = ?, cpu = ?, seed = ?, parent = ?, "
        "recipe_hash = ?, "
        "created = ?, ended = ?, end = ? WHERE key = ?")
      .bind(run.path())
      .bind(info.name)
      .bind(info.type)
      .bind(fmt::format("{}", fmt::join(info.command, " ")))
      .bind(info.version)
      .bind(info.cpu)
      .bind(fmt::format("{}", info.seed))
      .bind(info.parent)
      .bind(info.recipe_hash)
      .bind(info.created)
      .bind(info.ended)
      .bind(info.end)
      .bind(key)
      .run();
  Query(impl, "DELETE FROM recipes WHERE run = ?").bind(key).run();
  for (const FlatValue& value : recipe)
    Query(impl, "INSERT OR REPLACE INTO recipes VALUES (?, ?, ?)").bind(key).bind(value.path).bind(value.value).run();
  transaction.commit();
}

void Ledger::add_metrics(const std::string& run, const MetricsRow& row) {
  Impl& impl = open();
  Transaction transaction(impl);
  const int64_t key = run_key(impl, run);
  const auto add = [&](std::string_view tag, double value) {
    Query(impl, "INSERT OR REPLACE INTO metrics VALUES (?, ?, ?, ?, ?)")
        .bind(key)
        .bind(key_of(impl, impl.tag_keys, "tags", "tag", tag))
        .bind(row.step)
        .bind(row.attempt)
        .bind(value)
        .run();
  };
  for (const auto& [tag, value] : row.values) add(tag, value);
  // The x-axes of charts, as tags of their own.
  add("time", row.time);
  add("wall_s", row.wall_s);
  add("tokens", static_cast<double>(row.tokens));
  transaction.commit();
}

void Ledger::forget_after(const std::string& run, int64_t step) {
  Impl& impl = open();
  Transaction transaction(impl);
  const int64_t key = run_key(impl, run);
  Query(impl, "DELETE FROM metrics WHERE run = ? AND step > ?").bind(key).bind(step).run();
  Query(impl, "DELETE FROM samples WHERE run = ? AND step > ?").bind(key).bind(step).run();
  transaction.commit();
}

void Ledger::add_event(const std::string& run, const RunEvent& event) {
  Impl& impl = open();
  Transaction transaction(impl);
  Query(impl, "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)")
      .bind(run_key(impl, run))
      .bind(event.kind)
      .bind(event.step)
      .bind(event.attempt)
      .bind(event.time)
      .bind(event.json)
      .run();
  transaction.commit();
}

void Ledger::add_sample(const std::string& run, int64_t step, int64_t index, std::string_view json) {
  Impl& impl = open();
  Transaction transaction(impl);
  Query(impl, "INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?)")
      .bind(run_key(impl, run))
      .bind(step)
      .bind(index)
      .bind(json)
      .run();
  transaction.commit();
}

void Ledger::add_eval_item(const std::string& run, const EvalItem& item) {
  Impl& impl = open();
  Transaction transaction(impl);
  Query(impl, "INSERT OR REPLACE INTO eval_items VALUES (?, ?, ?, ?, ?)")
      .bind(run_key(impl, run))
      .bind(item.task)
      .bind(item.stamp)
      .bind(item.number)
      .bind(item.json)
      .run();
  transaction.commit();
}

void Ledger::add_artifact(const std::string& run, std::string_view kind, std::string_view path, std::string_view hash) {
  Impl& impl = open();
  Transaction transaction(impl);
  Query(impl, "INSERT OR REPLACE INTO artifacts VALUES (?, ?, ?, ?)")
      .bind(run_key(impl, run))
      .bind(path)
      .bind(kind)
      .bind(hash)
      .run();
  transaction.commit();
}

void Ledger::remove_run(const std::string& run) {
  Impl& impl = open();
  Transaction transaction(impl);
  const int64_t key = run_key(impl, run);
  for (const char* table : kTablesOfRun)
    Query(impl, fmt::format("DELETE FROM {} WHERE run = ?", table)).bind(key).run();
  Query(impl, "DELETE FROM runs WHERE key = ?").bind(key).run();
  impl.run_keys.erase(run);
  transaction.commit();
}

void Ledger::add_artifact_event(const std::string& run, const RunEvent& event) {
  const Json json = parse_json(event.json, "metrics.jsonl");
  const auto text = [&](const char* key) {
    const auto at = json.find(key);
    return at != json.end() && at->is_string() ? at->get<std::string>() : std::string();
  };
  add_artifact(run, text("artifact"), text("path"), text("hash"));
}

namespace {
// All that a run's folder says, read before anything is written: what is wrong there is not wrong with the database.
struct RunFiles {
  std::vector<FlatValue> recipe;
  MetricsLog metrics;
  struct Sample {
    int64_t step, index;
    std::string line;
  };
  std::vector<Sample> samples;
  std::vector<EvalItem> eval_items;
};
RunFiles read_files(const RunDir& run) {
  RunFiles files{recipe_of(run), read_metrics(run), {}, run.eval_items()};
  for (const int64_t step : run.sample_steps()) {
    int64_t index = 0;
    for (std::string& line : run.samples(step)) files.samples.push_back({step, index++, std::move(line)});
  }
  return files;
}
}  // namespace

int64_t Ledger::reindex(const std::string& runs_root) {
  const auto rebuild = [&] {
    Impl& impl = open();
    Transaction transaction(impl);
    for (const char* table : kTablesOfRun) impl.execute(fmt::format("DELETE FROM {}", table).c_str());
    impl.execute("DELETE FROM runs; DELETE FROM tags");
    impl.run_keys.clear();
    impl.tag_keys.clear();
    const std::vector<RunDir> runs = RunDir::list(runs_root);
    int64_t count = 0;
    for (const RunDir& run : runs) {
      RunFiles files;
      try {
        files = read_files(run);
      } catch (const Error& e) {
        log_warn("skipping {}: {}", run.path(), e.what());
        continue;
      }
      add_run(run, files.recipe);
      for (const MetricsRow& row : files.metrics.rows) add_metrics(run.id(), row);
      for (const RunEvent& event : files.metrics.events) {
        add_event(run.id(), event);
        if (event.kind == "artifact") add_artifact_event(run.id(), event);
      }
      for (const auto& [step, index, line] : files.samples) add_sample(run.id(), step, index, line);
      for (const EvalItem& item : files.eval_items) add_eval_item(run.id(), item);
      ++count;
    }
    transaction.commit();
    return count;
  };
  try {
    return rebuild();
  } catch (const Error& e) {
    if (e.code() != Exit::data) throw;
    // Not a database, damaged, or of another version: nothing in it is worth more than the folders.
    impl_.reset();
    for (const char* suffix : {"", "-wal", "-shm", "-journal"}) remove_file(path_ + suffix);
    return rebuild();
  }
}

// --- Reading ---------------------------------------------------------------------------------------------------------

std::vector<Ledger::RunRow> Ledger::runs() {
  std::vector<RunRow> rows;
  Query query(
      open(),
      "SELECT id, path, name, type, recipe_hash, parent, end, created, ended, "
      "COALESCE((SELECT MAX(step) FROM metrics JOIN tags ON tags.key = metrics.tag WHERE run = runs.key AND tags.tag = "
      "'time'), -1) "
      "FROM runs ORDER BY created, id");
  while (query.next())
    rows.push_back({query.text(0), query.text(1), query.text(2), query.text(3), query.text(4), query.text(5),
                    query.text(6), query.number(7), query.number(8), query.integer(9)});
  return rows;
}

std::vector<std::pair<std::string, std::string>> Ledger::recipe(const std::string& run) {
  std::vector<std::pair<std::string, std::string>> values;
  Query query(open(), "SELECT field, value FROM recipes JOIN runs ON runs.key = run WHERE id = ? ORDER BY field");
  query.bind(run);
  while (query.next()) values.emplace_back(query.text(0), query.text(1));
  return values;
}

std::vector<std::string> Ledger::tags(const std::string& run) {
  std::vector<std::string> names;
  // One probe per tag instead of a walk over all points.
  Query query(open(),
              "SELECT tags.tag FROM tags, runs WHERE id = ? AND EXISTS (SELECT 1 FROM metrics WHERE run = runs.key AND "
              "metrics.tag = tags.key) ORDER BY tags.tag");
  query.bind(run);
  while (query.next()) names.push_back(query.text(0));
  return names;
}

std::vector<Ledger::Point> Ledger::metric(const std::string& run, std::string_view tag) {
  std::vector<Point> points;
  Query query(open(),
              "SELECT step, attempt, value FROM metrics WHERE run = (SELECT key FROM runs WHERE id = ?) AND "
              "tag = (SELECT key FROM tags WHERE tag = ?) ORDER BY step");
  query.bind(run).bind(tag);
  while (query.next()) points.push_back({query.integer(0), query.integer(1), query.number(2)});
  return points;
}

std::optional<double> Ledger::last_value(const std::string& run, std::string_view tag) {
  Query query(open(),
              "SELECT value FROM metrics WHERE run = (SELECT key FROM runs WHERE id = ?) AND "
              "tag = (SELECT key FROM tags WHERE tag = ?) ORDER BY step DESC LIMIT 1");
  query.bind(run).bind(tag);
  if (!query.next()) return std::nullopt;
  return query.number(0);
}

std::vector<std::string> Ledger::samples(const std::string& run, int64_t step) {
  std::vector<std::string> lines;
  Query query(open(),
              "SELECT json FROM samples WHERE run = (SELECT key FROM runs WHERE id = ?) AND step = ? ORDER BY number");
  query.bind(run).bind(step);
  while (query.next()) lines.push_back(query.text(0));
  return lines;
}

std::vector<int64_t> Ledger::sample_steps(const std::string& run) {
  std::vector<int64_t> steps;
  Query query(open(),
              "SELECT DISTINCT step FROM samples WHERE run = (SELECT key FROM runs WHERE id = ?) ORDER BY step");
  query.bind(run);
  while (query.next()) steps.push_back(query.integer(0));
  return steps;
}

std::vector<EvalItem> Ledger::eval_items(const std::string& run, std::string_view task) {
  std::vector<EvalItem> items;
  Query query(open(),
              "SELECT stamp, number, json FROM eval_items WHERE run = (SELECT key FROM runs WHERE id = ?) AND task = ? "
              "ORDER BY stamp, number");
  query.bind(run).bind(task);
  while (query.next()) items.push_back({std::string(task), query.text(0), query.integer(1), query.text(2)});
  return items;
}

std::vector<Ledger::Artifact> Ledger::artifacts(const std::string& run) {
  std::vector<Artifact> found;
  Query query(open(),
              "SELECT kind, path, hash FROM artifacts WHERE run = (SELECT key FROM runs WHERE id = ?) ORDER BY path");
  query.bind(run);
  while (query.next()) found.push_back({query.text(0), query.text(1), query.text(2)});
  return found;
}

std::vector<RunEvent> Ledger::events(const std::string& run) {
  std::vector<RunEvent> found;
  Query query(open(),
              "SELECT kind, step, attempt, time, json FROM events WHERE run = (SELECT key FROM runs WHERE id = ?) "
              "ORDER BY rowid");
  query.bind(run);
  while (query.next())
    found.push_back({query.text(0), query.integer(1), query.integer(2), query.number(3), query.text(4)});
  return found;
}

}  // namespace ponder
