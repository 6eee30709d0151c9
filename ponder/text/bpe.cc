#include "ponder/text/bpe.h"

#include <simdjson.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "ponder/base/error.h"
#include "ponder/base/json.h"
#include "ponder/text/stream.h"
#include "ponder/text/unicode.h"

namespace ponder::text {
namespace {

// Pieces seen lately with their ids, direct-mapped, one table per thread for all tokenizers: what is hit costs one
// cache line, what collides is overwritten.
struct CachedPiece {
  static constexpr size_t kMaxBytes = 30, kMaxIds = 7;
  uint32_t owner = 0;  // 0: empty
  uint8_t bytes = 0, ids = 0;
  char text[kMaxBytes];
  int32_t id[kMaxIds];
};
static_assert(sizeof(CachedPiece) == 64);
constexpr size_t kCacheBits = 15;

uint64_t load_word(const char* p, size_t n) {
  uint64_t w = 0;
  std::memcpy(&w, p, n);
  return w;
}

size_t cache_slot(std::string_view s, uint32_t owner) {
  uint64_t h = owner * 0xD6E8FEB86659FD93u ^ s.size();
  for (size_t i = 0; i < s.size(); i += 8) {
    h = (h ^ load_word(s.data() + i, std::min<size_t>(8, s.size() - i))) * 0x9E3779B97F4A7C15u;
    h ^= h >> 32;
  }
  return (h * 0x9E3779B97F4A7C15u) >> (64 - kCacheBits);
}

CachedPiece* piece_cache() {
  thread_local std::vector<CachedPiece> cache(size_t{1} << kCacheBits);
  return cache.data();
}

std::vector<Merge> resolve(const Tokenizer& t, std::span<const std::pair<std::string_view, std::string_view>> merges,
                           bool skip_impossible, std::string_view name) {
  std::vector<Merge> out;
  out.reserve(merges.size());
  std::string merged;
  for (const auto& [left, right] : merges) {
    const auto a = t.find(left), b = t.find(right);
    if (skip_impossible && !(a && b)) continue;
    merged.assign(left).append(right);
    const auto c = t.find(merged);
    if (!a || !b || !c)
      throw_error(Exit::data, "{}: merge {} (\"{}\" and \"{}\"): {} is not in the vocabulary", name, out.size(),
                  left.substr(0, 40), right.substr(0, 40),
                  !a   ? "the first"
                  : !b ? "the second"
                       : "the result");
    out.push_back({*a, *b, *c});
  }
  return out;
}

Pretokenizer pretokenizer_of(std::vector<SplitStep> steps, std::string_view name) {
  try {
    return Pretokenizer(std::move(steps));
  } catch (const Error& e) {
    throw_error(e.code(), "{}: {}", name, e.what());
  }
}

}  // namespace

Bpe::Bpe(BpeParts parts, std::string_view name, std::string json)
    : Tokenizer(std::move(parts.tokens), std::move(parts.added)),
      pretokenizer_(pretokenizer_of(std::move(parts.steps), name)),
      nfc_(parts.nfc),
      ignore_merges_(parts.ignore_merges),
      fuse_unknown_(parts.fuse_unknown),
      unknown_(parts.unknown),
      json_(std::move(json)) {
  static std::atomic<uint32_t> owners{0};
  owner_ = ++owners;
  if (const auto id = index().twice())
    throw_error(Exit::data, "{}: \"{}\" has two ids, {} and {}", name, token(*id).substr(0, 40), *find(token(*id)),
                *id);
  merges_ = MergeTable(resolve(*this, parts.merges, parts.skip_impossible_merges, name));
  for (size_t b = 0; b < 256; ++b) byte_ids_[b] = find(byte_alphabet()[b]).value_or(unknown_.value_or(-1));
  std::vector<std::pair<std::string, AddedToken>> normalized;
  for (const AddedToken& a : added()) {
    if (!a.normalized) continue;
    std::string content = nfc_ ? to_nfc(token(a.id)) : token(a.id);
    const auto same = [&](const auto& other) { return other.first == content; };
    if (std::none_of(normalized.begin(), normalized.end(), same)) normalized.emplace_back(std::move(content), a);
  }
  normalized_ = AddedTokenMatcher(std::move(normalized));
}

void Bpe::encode_stretch(std::string_view text, Specials specials, std::vector<int32_t>& out) const {
  std::string repaired, normalised;
  if (!simdjson::validate_utf8(text.data(), text.size())) {
    Utf8Stream stream;
    repaired = stream.push(text);
    text = repaired += stream.flush();
  }
  if (nfc_ && may_change_in_nfc(text)) text = normalised = to_nfc(text);
  if (specials == Specials::ignore || normalized_.empty()) return encode_pieces(text, out);
  normalized_.cut(text, [&](std::string_view stretch, std::optional<int32_t> id) {
    if (id) {
      out.push_back(*id);
    } else {
      encode_pieces(stretch, out);
    }
  });
}

void Bpe::encode_pieces(std::string_view text, std::vector<int32_t>& out) const {
  CachedPiece* const cache = piece_cache();
  for (const Pretokenizer::Piece at : pretokenizer_.split(text)) {
    const std::string_view piece = text.substr(at.begin, at.end - at.begin);
    if (piece.size() > CachedPiece::kMaxBytes) {
      encode_piece(piece, out);
      continue;
    }
    CachedPiece& c = cache[cache_slot(piece, owner_)];
    if (c.owner != owner_ || std::string_view(c.text, c.bytes) != piece) {
      const size_t before = out.size();
      encode_piece(piece, out);
      const size_t n = out.size() - before;
      if (n > CachedPiece::kMaxIds) continue;
      c.owner = owner_;
      c.bytes = static_cast<uint8_t>(piece.size());
      c.ids = static_cast<uint8_t>(n);
      std::copy(piece.begin(), piece.end(), c.text);
      std::copy(out.end() - static_cast<std::ptrdiff_t>(n), out.end(), c.id);
      continue;
    }
    out.insert(out.end(), c.id, c.id + c.ids);
  }
}

void Bpe::encode_piece(std::string_view piece, std::vector<int32_t>& out) const {
  if (ignore_merges_) {
    std::string spelled;
    for (const char c : piece) spelled += byte_alphabet()[static_cast<unsigned char>(c)];
    if (const auto id = find(spelled)) return out.push_back(*id);
  }
  const size_t before = out.size();
  bool was_unknown = false;
  for (const char c : piece) {
    const int32_t id = byte_ids_[static_cast<unsigned char>(c)];
    const bool is_unknown = id < 0 || id == unknown_;
    if (id >= 0 && !(fuse_unknown_ && is_unknown && was_unknown)) out.push_back(id);
    was_unknown = is_unknown;
  }
  out.resize(before + merges_.apply(std::span(out).subspan(before)));
}

std::string Bpe::piece(int32_t id, bool) const {
  const std::string& spelled = token(id);
  std::string bytes;
  for (size_t i = 0; i < spelled.size();) {
    const CodePoint c = code_point(spelled.data() + i);
    const int byte = byte_of(c.value);
    if (byte < 0) return spelled;  // a mark such as DeepSeek's stands for its own text
    bytes += static_cast<char>(byte);
    i += c.bytes;
  }
  return bytes;
}

std::string Bpe::to_json() const {
  if (!json_.empty()) return json_;
  std::string out;
  JsonWriter w(out);
  const auto null = [&](const char* key) { w.key(key).null(); };
  const auto byte_level = [&](bool use_regex) {
    w.begin_object().member("type", "ByteLevel").member("add_prefix_space", false).member("trim_offsets", true);
    w.member("use_regex", use_regex).end_object();
  };
  w.begin_object().member("version", "1.0");
  null("truncation");
  null("padding");
  w.key("added_tokens").begin_array();
  for (const AddedToken& a : added()) {
    w.begin_object().member("id", a.id).member("content", token(a.id)).member("single_word", a.single_word);
    w.member("lstrip", a.lstrip).member("rstrip", a.rstrip).member("normalized", a.normalized);
    w.member("special", a.special).end_object();
  }
  w.end_array().key("normalizer");
  if (nfc_) {
    w.begin_object().member("type", "NFC").end_object();
  } else {
    w.null();
  }
  w.key("pre_tokenizer").begin_object().member("type", "Sequence").key("pretokenizers").begin_array();
  bool with_regex = false;
  for (const SplitStep& step : pretokenizer_.steps()) {
    using Kind = SplitStep::Kind;
    if (step.kind == Kind::byte_level) {
      with_regex = true;
      byte_level(true);
    } else if (step.kind == Kind::digit || step.kind == Kind::digits) {
      w.begin_object().member("type", "Digits").member("individual_digits", step.kind == Kind::digit).end_object();
    } else {
      w.begin_object().member("type", "Split").key("pattern").begin_object();
      w.member(step.kind == Kind::regex ? "Regex" : "String", step.pattern).end_object();
      w.member("behavior", step.keep == SplitStep::Keep::isolated ? "Isolated" : "Removed");
      w.member("invert", step.keep == SplitStep::Keep::matches).end_object();
    }
  }
  if (!with_regex) byte_level(false);
  w.end_array().end_object();
  null("post_processor");
  w.key("decoder");
  byte_level(true);
  w.key("model").begin_object().member("type", "BPE");
  for (const char* key : {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"}) null(key);
  w.member("fuse_unk", false).member("byte_fallback", false).member("ignore_merges", ignore_merges_);
  w.key("vocab").begin_object();
  for (int32_t id = 0; id < vocab_size(); ++id) {
    if (!token(id).empty()) w.member(token(id), id);
  }
  w.end_object().key("merges").begin_array();
  for (const Merge& m : merges()) w.begin_array().value(token(m.left)).value(token(m.right)).end_array();
  w.end_array().end_object().end_object();
  return out + "\n";
}

}  // namespace ponder::text
