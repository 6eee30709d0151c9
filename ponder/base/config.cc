#include "ponder/base/config.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <set>

#include "ponder/base/config_parts.h"
#include "ponder/base/file.h"
#include "ponder/base/utf8.h"

extern char** environ;

namespace ponder {

using namespace config;

namespace {

constexpr int kMaxParents = 16;
constexpr int kStageRank = 1000, kEnvironmentRank = 2000, kSetRank = 3000;

}  // namespace

// --- Names -----------------------------------------------------------------------------------------------------------

std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates) {
  // Optimal string alignment: insert, delete, replace, swap neighbours. Capital letters and - for _ cost nothing.
  const auto plain = [](std::string_view text) {
    std::string out = lower(text);
    std::replace(out.begin(), out.end(), '-', '_');
    return out;
  };
  const std::string a = plain(name.substr(0, 128));
  const size_t limit = std::clamp<size_t>(a.size() / 3, 1, 3);
  size_t best = limit + 1;
  std::string nearest;
  for (const std::string& candidate : candidates) {
    const std::string b = plain(candidate);
    if (b.size() > a.size() + limit || a.size() > b.size() + limit) continue;
    std::vector<size_t> before, last(b.size() + 1), row(b.size() + 1);
    for (size_t j = 0; j <= b.size(); ++j) last[j] = j;
    for (size_t i = 1; i <= a.size(); ++i) {
      row[0] = i;
      for (size_t j = 1; j <= b.size(); ++j) {
        row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
        if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
          row[j] = std::min(row[j], before[j - 2] + 1);
      }
      before = last;
      last = row;
    }
    if (last[b.size()] < best) {
      best = last[b.size()];
      nearest = candidate;
    }
  }
  return nearest;
}

namespace {

bool synonym_matches(const std::string& synonym, const std::string& key) {
  if (key == synonym) return true;
  return synonym.find('.') != synonym.npos && key.size() > synonym.size() && key.ends_with(synonym) &&
         key[key.size() - synonym.size() - 1] == '.';
}

bool pattern_matches(const std::string& pattern, const std::string& key) {
  const auto match = [&](std::string_view text) {
    if (pattern.ends_with('*')) return text.starts_with(std::string_view(pattern).substr(0, pattern.size() - 1));
    return text == pattern;
  };
  return match(key) || match(std::string_view(key).substr(key.rfind('.') + 1));
}

// What a key of a document means for a struct.
struct Meaning {
  const Field* field = nullptr;
  const List* list = nullptr;
  size_t list_depth = 0;  // parts of the key up to and with the list's name
  const Ignored* ignored = nullptr;
  bool renamed = false;  // by a synonym: worth a note
  bool section = false;  // an empty table of that name is fine
  std::string problem;   // set if there is no meaning
};

Meaning resolve(const Binder::Tree& tree, const Path& path, bool exact_only) {
  Meaning meaning;
  // The full path, as far as it goes.
  std::vector<const Section*> walk{&tree.root};
  for (size_t i = 0; i < path.size(); ++i) {
    const Section& at = *walk.back();
    if (i + 1 == path.size())
      for (const Field& field : at.fields)
        if (field.name == path[i]) return meaning.field = &field, meaning;
    for (const List& list : at.lists)
      if (list.name == path[i]) return meaning.list = &list, meaning.list_depth = i + 1, meaning;
    const auto next =
        std::find_if(at.sections.begin(), at.sections.end(), [&](const auto& s) { return s->name == path[i]; });
    if (next == at.sections.end()) break;
    walk.push_back(next->get());
  }
  if (walk.size() == path.size() + 1) return meaning.section = true, meaning;
  if (exact_only) return meaning;

  // A bare leaf or a synonym, within the innermost section that the path names, then in the sections around it; a
  // synonym with dots may also mean a path from the top.
  const std::string whole = join(path);
  for (size_t depth = walk.size(); depth-- > 0;) {
    const std::string rest = join(path, depth);
    std::vector<const Field*> by_name, by_synonym;
    each_field(*walk[depth], [&](const Field& field) {
      if (field.name == rest) by_name.push_back(&field);
      for (const std::string& synonym : field.synonyms)
        if (synonym_matches(synonym, rest) || synonym_matches(synonym, whole)) {
          by_synonym.push_back(&field);
          break;
        }
    });
    const std::vector<const Field*>& found = by_name.empty() ? by_synonym : by_name;
    if (found.size() == 1) {
      meaning.field = found[0];
      meaning.renamed = by_name.empty();
      return meaning;
    }
    if (found.size() > 1) {
      Path paths;
      for (const Field* field : found) paths.push_back(field->path);
      meaning.problem = fmt::format("`{}` could be any of {}; write the full path", whole, fmt::join(paths, ", "));
      return meaning;
    }
  }
  for (const Ignored& ignored : tree.ignored)
    if (pattern_matches(ignored.pattern, whole)) return meaning.ignored = &ignored, meaning;

  // Unknown. The leaf may stand elsewhere, or be a slip of the hand.
  std::string suggestion;
  std::vector<std::string> names, sections;
  std::map<std::string, std::string> shown;
  const auto candidate = [&](const std::string& name, const std::string& show) {
    names.push_back(name);
    shown.emplace(name, show);
  };
  each_field(tree.root, [&](const Field& field) {
    if (field.name == path.back() && suggestion.empty()) suggestion = field.path;
    candidate(field.name, path.size() == 1 ? field.name : field.path);
    candidate(field.path, field.path);
    for (const std::string& synonym : field.synonyms) candidate(synonym, field.path);
  });
  for (const List& list : tree.root.lists) candidate(list.name, list.name);
  for (const auto& section : tree.root.sections) sections.push_back(section->name);
  if (suggestion.empty()) suggestion = shown[nearest_name(path.back(), names)];
  if (suggestion.empty()) suggestion = shown[nearest_name(whole, names)];
  if (suggestion.empty() && walk.size() == 1) suggestion = nearest_name(path[0], sections);
  meaning.problem = fmt::format(
      "unknown key `{}`; {}", whole,
      suggestion.empty() ? "`ponder recipe show` lists all fields" : fmt::format("did you mean `{}`?", suggestion));
  return meaning;
}

// One thing a document or an override wants.
struct Wish {
  Path path;
  NodePtr node;
};

void collect(const NodePtr& node, Path& path, std::vector<Wish>& wishes) {
  if (node->kind == Node::Kind::table && !node->entries.empty()) {
    for (const auto& [key, entry] : node->entries) {
      path.push_back(key);
      collect(entry, path, wishes);
      path.pop_back();
    }
  } else if (!path.empty()) {
    wishes.push_back({path, node});
  }
}

struct Override {
  std::string key;
  NodePtr node;
};

// What several stages of one recipe know together.
struct Shared {
  std::vector<std::string> notes;
  std::vector<std::string> files;
  std::set<NodePtr> used, peeked;
  std::map<NodePtr, std::string> unknown;  // and the message, should nobody use it
  int unbound_stages = 0;

  void note(std::string text) {
    if (std::find(notes.begin(), notes.end(), text) == notes.end()) notes.push_back(std::move(text));
  }
};

}  // namespace

struct Recipe::Impl {
  NodePtr root = [] {
    auto table = std::make_shared<Node>();
    table->kind = Node::Kind::table;
    return table;
  }();
  std::vector<Override> overrides;                           // --set, in order
  std::vector<std::pair<std::string, NodePtr>> environment;  // name after PONDER_, value
  std::shared_ptr<Shared> shared = std::make_shared<Shared>();
  bool is_stage = false, bound = false;

  void unknown(const NodePtr& node, const std::string& problem) {
    if (!is_stage || (node->rank >= kStageRank && node->rank < kEnvironmentRank))
      throw_error(node->exit(), "{}: {}", node->where, problem);
    // Another stage may know what a top-level key means. If none does, the message with a suggestion is the better one.
    std::string& known = shared->unknown[node];
    if (known.empty() || problem.find("did you mean") != problem.npos) known = problem;
  }
  void apply(const Field& field, const Wish& wish, bool renamed);
  void bind(Binder::Tree& tree, const NodePtr& table, const std::vector<Override>& sets, bool top);
  void set_list(const List& list, const NodePtr& node, const std::vector<Override>& sets, const Path& path);
  // Path as printed ("reward.0.weight") -> source.
  std::map<std::string, std::string> sources;
  std::string prefix;  // of the list element being bound: "reward.0."
};

void Recipe::Impl::apply(const Field& field, const Wish& wish, bool renamed) {
  NodePtr node = wish.node;
  const std::string before = plain_text(*node);
  for (const auto& [from, to] : field.value_synonyms) {
    if (lower(from) != lower(before)) continue;
    NodePtr mapped = parse_value(to);
    mapped->where = node->where;
    mapped->typed = node->typed;
    shared->note(fmt::format("{} = {} -> {} = {}", join(wish.path), before, field.name, to));
    node = mapped;
    renamed = false;
    break;
  }
  if (renamed) shared->note(fmt::format("{} -> {}", join(wish.path), field.name));
  assign(field, *node);
  sources[prefix + field.path] = wish.node->source;
}

void Recipe::Impl::set_list(const List& list, const NodePtr& node, const std::vector<Override>& sets,
                            const Path& path) {
  if (node) {
    if (node->kind != Node::Kind::array || (!node->items.empty() && !node->is_list_of_tables()))
      throw_error(node->exit(), "{}: `{}` is a list of tables: write [[{}]]", node->where, join(path), list.path);
    list.calls.resize(list.list, node->items.size());
    sources[prefix + list.path] = node->source;
  }
  const size_t size = list.calls.size(list.list);
  std::vector<std::vector<Override>> own(size);
  for (const Override& set : sets) {
    const Path parts = split(set.key);  // element, then the rest
    size_t element = size;
    for (size_t i = 0; i < size && element == size; ++i) {
      if (parts[0] == fmt::format("{}", i)) element = i;
      Binder binder;
      list.calls.visit(list.list, i, binder);
      each_field(binder.tree().root, [&](const Field& field) {
        if (field.path != "name") return;
        std::string name = value_of(field);
        if (node)
          if (const NodePtr* given = node->items[i]->find("name")) name = to_toml(**given);
        if (name == toml_string(parts[0])) element = i;
      });
    }
    if (element == size || parts.size() < 2)
      throw_error(set.node->exit(),
                  "{}: `{}` has {} elements; write {}.NUMBER.field, or their name instead of the number",
                  set.node->where, list.path, size, list.path);
    own[element].push_back({join(parts, 1), set.node});
  }
  for (size_t i = 0; i < size; ++i) {
    Binder binder;
    list.calls.visit(list.list, i, binder);
    const std::string outer = prefix;
    prefix = fmt::format("{}{}.{}.", outer, list.path, i);
    bind(binder.tree(), node ? node->items[i] : nullptr, own[i], false);
    prefix = outer;
  }
}

void Recipe::Impl::bind(Binder::Tree& tree, const NodePtr& table, const std::vector<Override>& sets, bool top) {
  struct Winner {
    Wish wish;
    bool renamed;
  };
  std::map<const Field*, Winner> winners;
  std::map<const List*, Wish> lists;
  std::map<const List*, std::vector<Override>> list_sets;
  const auto claim = [&](const Field* field, Wish wish, bool renamed) {
    const auto [at, fresh] = winners.try_emplace(field, Winner{wish, renamed});
    if (fresh) return;
    const Node& old = *at->second.wish.node;
    if (old.rank == wish.node->rank && !wish.node->typed)
      throw_error(Exit::data, "{}: `{}` is set a second time (the first is `{}` at {})", wish.node->where,
                  join(wish.path), join(at->second.wish.path), old.where);
    if (wish.node->rank >= old.rank) at->second = {std::move(wish), renamed};
  };
  const auto place = [&](const Wish& wish) {
    const Meaning meaning = resolve(tree, wish.path, shared->peeked.count(wish.node) > 0);
    if (meaning.field) {
      claim(meaning.field, wish, meaning.renamed);
    } else if (meaning.list && meaning.list_depth == wish.path.size()) {
      Wish& known = lists[meaning.list];
      if (!known.node || known.node->rank <= wish.node->rank) known = wish;
    } else if (meaning.list && wish.node->typed) {
      list_sets[meaning.list].push_back({join(wish.path, meaning.list_depth), wish.node});
    } else if (meaning.list) {
      return unknown(wish.node,
                     fmt::format("`{}` is a list of tables: write [[{}]]", meaning.list->path, meaning.list->path));
    } else if (meaning.ignored) {
      shared->note(fmt::format("{} does nothing here: {}", join(wish.path), meaning.ignored->why));
    } else if (meaning.section && wish.node->kind != Node::Kind::table) {
      return unknown(wish.node, fmt::format("`{}` is a section, not a value", join(wish.path)));
    } else if (!meaning.problem.empty()) {
      return unknown(wish.node, meaning.problem);
    }
    shared->used.insert(wish.node);
  };

  std::vector<Wish> wishes;
  Path path;
  if (table) collect(table, path, wishes);
  for (const Wish& wish : wishes) place(wish);

  if (top) {
    for (const auto& variable : environment) {
      const std::string& name = variable.first;
      const NodePtr& node = variable.second;
      const Field* match = nullptr;
      std::vector<std::string> names;
      int leaves = 0;
      each_field(tree.root, [&](const Field& field) {
        std::string leaf = lower(field.name), full = lower(field.path);
        std::replace(full.begin(), full.end(), '.', '_');
        if (lower(name) == full)
          match = &field, leaves = -1;
        else if (lower(name) == leaf && leaves >= 0)
          match = &field, ++leaves;
        names.push_back(leaf);
        names.push_back(full);
      });
      if (leaves > 1)
        throw_error(Exit::usage, "{}: several fields have that name; use PONDER_SECTION_NAME", node->where);
      if (match) {
        claim(match, {{match->path}, node}, false);
        shared->used.insert(node);
      } else if (const std::string near = nearest_name(name, names); !near.empty()) {
        std::string upper = near;
        for (char& c : upper) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
        shared->note(fmt::format("PONDER_{} matches no field; did you mean PONDER_{}?", name, upper));
      }
    }
  }
  for (const Override& set : sets) place({split(set.key), set.node});

  each_field(tree.root, [&](const Field& field) {
    if (const auto at = winners.find(&field); at != winners.end()) apply(field, at->second.wish, at->second.renamed);
  });

  const auto each_list = [&](const auto& self, const Section& section) -> void {
    for (const List& list : section.lists) {
      const Wish& wish = lists[&list];
      set_list(list, wish.node, list_sets[&list], wish.path);
    }
    for (const auto& child : section.sections) self(self, *child);
  };
  each_list(each_list, tree.root);
}

// --- Recipe ----------------------------------------------------------------------------------------------------------

namespace {

// Replaces `extends` by what it names.
NodePtr with_parents(NodePtr document, const std::string& name, std::vector<std::string>& files) {
  const NodePtr* extends = document->find("extends");
  if (!extends) return document;
  const NodePtr clause = *extends;
  if (clause->kind != Node::Kind::text || clause->text.empty())
    throw_error(Exit::data, "{}: `extends` names one file, as text", clause->where);
  const std::string path = join_path(parent_folder(name), clause->text);
  if (std::find(files.begin(), files.end(), path) != files.end() || files.size() > kMaxParents)
    throw_error(Exit::data, "{}: `extends` goes round in a circle: {} -> {}", clause->where, fmt::join(files, " -> "),
                path);
  if (!path_exists(path)) throw_error(Exit::data, "{}: `extends` names {}, which does not exist", clause->where, path);
  files.push_back(path);
  const int rank = -static_cast<int>(files.size()) + 1;
  NodePtr parent = parse_document(read_file(path, kMaxRecipeBytes), path, rank);
  return merge(with_parents(parent, path, files), without(document, "extends"));
}

}  // namespace

Recipe::Recipe() : impl_(std::make_unique<Impl>()) {}
Recipe::Recipe(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Recipe::~Recipe() = default;
Recipe::Recipe(Recipe&&) noexcept = default;
Recipe& Recipe::operator=(Recipe&&) noexcept = default;

Recipe Recipe::load(const std::string& path) { return parse(read_file(path, kMaxRecipeBytes), path); }

Recipe Recipe::parse(std::string_view text, const std::string& name) {
  Recipe recipe;
  std::vector<std::string>& files = recipe.impl_->shared->files;
  files.push_back(name);
  recipe.impl_->root = with_parents(parse_document(text, name, 0), name, files);
  return recipe;
}

void Recipe::read_environment() {
  for (char** entry = environ; *entry; ++entry) {
    std::string_view text = *entry;
    const size_t equals = text.find('=');
    if (!text.starts_with("PONDER_") || equals == text.npos) continue;
    NodePtr node = parse_value(text.substr(equals + 1));
    node->where = text;
    node->source = fmt::format("env {}", text.substr(0, equals));
    node->rank = kEnvironmentRank;
    node->typed = true;
    if (!is_utf8(text)) throw_error(Exit::usage, "{}: not valid UTF-8", text.substr(0, equals));
    impl_->environment.emplace_back(text.substr(7, equals - 7), node);
  }
  std::sort(impl_->environment.begin(), impl_->environment.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
}

void Recipe::set(std::string_view assignment) {
  const size_t equals = assignment.find('=');
  if (equals == assignment.npos || equals == 0)
    throw_error(Exit::usage, "--set {}: expected field=value, for example --set learning_rate=1e-4", assignment);
  if (!is_utf8(assignment)) throw_error(Exit::usage, "--set: not valid UTF-8");
  const auto trim = [](std::string_view text) {
    while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
    while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
    return text;
  };
  NodePtr node = parse_value(trim(assignment.substr(equals + 1)));
  node->where = fmt::format("--set {}", assignment);
  node->source = "--set";
  node->rank = kSetRank + static_cast<int>(impl_->overrides.size());
  node->typed = true;
  impl_->overrides.push_back({std::string(trim(assignment.substr(0, equals))), node});
}

std::optional<std::string> Recipe::peek(std::string_view path) const {
  NodePtr found = impl_->root;
  for (const std::string& part : split(path)) {
    const NodePtr* next = found->find(part);
    found = next ? *next : nullptr;
    if (!found) break;
  }
  if (found) impl_->shared->peeked.insert(found);
  for (const Override& set : impl_->overrides) {
    if (set.key != path) continue;
    found = set.node;
    impl_->shared->peeked.insert(found);
  }
  if (!found || found->kind == Node::Kind::table || found->kind == Node::Kind::none) return std::nullopt;
  return plain_text(*found);
}

std::vector<Recipe> Recipe::stages() const {
  std::vector<Recipe> stages;
  const auto add = [&](NodePtr root, std::vector<Override> overrides) {
    auto impl = std::make_unique<Impl>();
    impl->root = std::move(root);
    impl->overrides = std::move(overrides);
    impl->environment = impl_->environment;
    impl->shared = impl_->shared;
    impl->is_stage = true;
    stages.push_back(Recipe(std::move(impl)));
  };
  const NodePtr* list = impl_->root->find("stage");
  impl_->shared->unbound_stages = 1;
  if (!list) {
    add(impl_->root, impl_->overrides);
    return stages;
  }
  if (!(*list)->is_list_of_tables())
    throw_error((*list)->exit(), "{}: `stage` is a list of tables: write [[stage]]", (*list)->where);
  const std::vector<NodePtr>& tables = (*list)->items;
  std::vector<std::string> names;
  for (const NodePtr& table : tables) {
    const NodePtr* name = table->find("name");
    names.push_back(name ? plain_text(**name) : fmt::format("{}", names.size()));
    if (std::count(names.begin(), names.end(), names.back()) > 1)
      throw_error(Exit::data, "{}: a second stage with the name `{}`", table->where, names.back());
  }
  std::vector<std::vector<Override>> overrides(tables.size());
  for (const Override& set : impl_->overrides) {
    const Path parts = split(set.key);
    bool placed = false;
    for (size_t i = 0; i < tables.size(); ++i) {
      const bool own = parts[0] == "stage" && parts.size() > 2;
      if (own && parts[1] != names[i] && parts[1] != fmt::format("{}", i)) continue;
      overrides[i].push_back({own ? join(parts, 2) : set.key, set.node});
      placed = true;
    }
    if (!placed) throw_error(Exit::usage, "{}: no such stage; there are {}", set.node->where, fmt::join(names, ", "));
  }
  const NodePtr top = without(impl_->root, "stage");
  for (size_t i = 0; i < tables.size(); ++i) {
    add(merge(top, with_rank(tables[i], kStageRank)), std::move(overrides[i]));
    stages.back().peek("name");
  }
  impl_->shared->unbound_stages = static_cast<int>(tables.size());
  return stages;
}

Origins Recipe::bind_tree(Binder::Tree& tree) {
  Impl& impl = *impl_;
  impl.sources.clear();
  impl.bind(tree, impl.root, impl.overrides, true);
  if (impl.is_stage && !impl.bound && --impl.shared->unbound_stages == 0)
    for (const auto& [node, problem] : impl.shared->unknown)
      if (!impl.shared->used.count(node) && !impl.shared->peeked.count(node))
        throw_error(node->exit(), "{}: {}", node->where, problem);
  impl.bound = true;

  Origins origins;
  const auto snapshot = [&](const auto& self, const Section& section, const std::string& prefix) -> void {
    const auto source = [&](const std::string& path) {
      const auto at = impl.sources.find(path);
      return at == impl.sources.end() ? std::string("default") : at->second;
    };
    for (const Field& field : section.fields) {
      const std::string path = prefix + field.path;
      origins[path] = {source(path), value_of(field)};
    }
    for (const auto& child : section.sections) self(self, *child, prefix);
    for (const List& list : section.lists) {
      const size_t size = list.calls.size(list.list);
      origins[prefix + list.path] = {source(prefix + list.path), fmt::format("{}", size)};
      for (size_t i = 0; i < size; ++i) {
        Binder binder;
        list.calls.visit(list.list, i, binder);
        self(self, binder.tree().root, fmt::format("{}{}.{}.", prefix, list.path, i));
      }
    }
  };
  snapshot(snapshot, tree.root, "");
  return origins;
}

const std::vector<std::string>& Recipe::notes() const { return impl_->shared->notes; }
const std::vector<std::string>& Recipe::files() const { return impl_->shared->files; }

}  // namespace ponder
