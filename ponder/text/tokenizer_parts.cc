#include "ponder/text/tokenizer_parts.h"

#include <type_traits>

#include "ponder/base/file.h"
#include "ponder/base/json_events.h"

namespace ponder::text {
namespace {

constexpr int kMaxDepth = 64;

// nlohmann's events in four kinds, for a Reader that derives from this: on_key(name), on_value(anything that has no
// parts), on_open(is_object) and on_close(); depth() is how many objects and arrays are open around them.
template <class Reader>
class Events {
 public:
  explicit Events(JsonPlace& place) : place_(place) {}

  bool null() { return reader().on_value(nullptr), true; }
  bool boolean(bool v) { return reader().on_value(v), true; }
  bool number_integer(int64_t v) { return collected(), reader().on_value(v), true; }
  bool number_unsigned(uint64_t v) {
    return v > INT64_MAX ? number_float(static_cast<double>(v), {}) : number_integer(static_cast<int64_t>(v));
  }
  bool number_float(double v, const std::string&) { return collected(), reader().on_value(v), true; }
  bool string(std::string& v) { return collected(), reader().on_value(v), true; }
  bool binary(nlohmann::json::binary_t&) { place_.fail("binary data"); }
  bool key(std::string& name) { return collected(), reader().on_key(name), true; }
  bool start_object(size_t) { return open(true); }
  bool start_array(size_t) { return open(false); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception& e) {
    place_.fail("{}", json_problem(e));
  }

 protected:
  int depth() const { return depth_; }
  JsonPlace& place_;

 private:
  Reader& reader() { return static_cast<Reader&>(*this); }
  // The parser lets go of what it has collected at texts and numbers only.
  void collected() { place_.last_event = place_.at; }
  bool open(bool object) {
    if (depth_ == kMaxDepth) place_.fail("more than {} levels of nesting", kMaxDepth);
    reader().on_open(object);
    ++depth_;
    return true;
  }
  bool close() {
    --depth_;
    reader().on_close();
    return true;
  }

  int depth_ = 0;
};

class PartFinder : public Events<PartFinder> {
 public:
  PartFinder(JsonPlace& place, Parts& root, Parts& model) : Events(place), root_(root), model_(model) {}

  void on_key(std::string_view name) {
    if (depth() != level()) return;
    name_ = name;
    begin_ = place_.text.find_first_not_of(" \t\r\n", place_.text.find(':', place_.at) + 1);
    items_ = 0;
  }
  template <class T>
  void on_value(const T&) {
    // Where a number ends is seen one byte too late.
    constexpr bool kNumber = std::is_same_v<T, int64_t> || std::is_same_v<T, double>;
    ended(place_.at - kNumber);
  }
  void on_open(bool object) {
    if (depth() == 1 && object && name_ == "model" && !has_model_) in_model_ = has_model_ = true;
  }
  void on_close() {
    if (in_model_ && depth() == 1) {
      in_model_ = false;
    } else {
      ended(place_.at);
    }
  }

 private:
  int level() const { return in_model_ ? 2 : 1; }
  void ended(size_t end) {
    items_ += depth() == level() + 1;
    if (depth() != level()) return;
    Parts& parts = in_model_ ? model_ : root_;
    const auto part = parts.find(name_);
    if (part != parts.end() && part->second.json.empty())
      part->second = {place_.text.substr(begin_, end - begin_), items_, begin_};
  }

  Parts &root_, &model_;
  std::string name_;  // of the member that is being read
  size_t begin_ = 0, items_ = 0;
  bool in_model_ = false, has_model_ = false;
};

class EntryReader : public Events<EntryReader> {
 public:
  EntryReader(JsonPlace& place, bool forget, const std::function<void(const Entry&)>& f)
      : Events(place), forget_(forget), f_(f) {}

  void on_key(std::string_view name) {
    if (depth() == 1) entry_.name = name;
    if (depth() == 2) field_ = name;
  }
  template <class T>
  void on_value(const T& v) {
    if (depth() == 1) {
      begin(v, false);
      end();
    } else if (depth() == 2) {
      add(v);
    }
  }
  void on_open(bool object) {
    if (depth() == 1) begin(nullptr, !object);
    if (depth() == 2) add(nullptr);
  }
  void on_close() {
    if (depth() == 1) end();
  }

 private:
  template <class T>
  void begin(const T& v, bool is_array) {
    entry_.value = v;
    entry_.is_array = is_array;
    entry_.fields.clear();
    field_.clear();
  }
  template <class T>
  void add(const T& v) {
    if (entry_.fields.size() == Entry::kMaxFields) place_.fail("an entry of more than {} fields", Entry::kMaxFields);
    entry_.fields.push_back({field_, v});
  }
  void end() {
    f_(entry_);
    constexpr size_t kStep = size_t{1} << 20;
    if (!forget_ || place_.at - forgotten_ < kStep) return;
    forget_pages(place_.text.data() + forgotten_, place_.at - forgotten_);
    forgotten_ = place_.at;
  }

  bool forget_;
  const std::function<void(const Entry&)>& f_;
  Entry entry_;
  std::string field_;
  size_t forgotten_ = 0;
};

}  // namespace

void find_parts(std::string_view text, const std::string& name, Parts& root, Parts& model) {
  JsonPlace place{.path = name, .text = text, .line = 1};
  PartFinder finder(place, root, model);
  read_events(place, finder);
}

const Scalar& Entry::operator[](std::string_view field) const {
  static const Scalar kNothing;
  for (const Field& f : fields) {
    if (f.name == field) return f.value;
  }
  return kNothing;
}

void read_entries(const Part& part, const std::string& name, bool forget, const std::function<void(const Entry&)>& f) {
  JsonPlace place{.path = name, .text = part.json, .first = part.first};
  EntryReader reader(place, forget, f);
  read_events(place, reader);
}

}  // namespace ponder::text
