#include "ponder/text/bpe.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "ponder/base/error.h"
#include "ponder/base/json.h"
#include "ponder/base/utf8.h"
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

// A post-processor that puts a mark in front of a text, and in front of each of two.
void begin_with(JsonWriter& w, std::string_view mark, int32_t id) {
  w.begin_object().member("type", "TemplateProcessing");
  const auto part = [&](const char* kind, std::string_view name, int type) {
    w.begin_object().key(kind).begin_object().member("id", name).member("type_id", type).end_object().end_object();
  };
  for (const int texts : {1, 2}) {
    w.key(texts == 1 ? "single" : "pair").begin_array();
    for (int i = 0; i < texts; ++i) {
      part("SpecialToken", mark, i);
      part("Sequence", i == 0 ? "A" : "B", i);
    }
    w.end_array();
  }
  w.key("special_tokens").begin_object().key(mark).begin_object().member("id", mark);
  w.key("ids").begin_array().value(id).end_array().key("tokens").begin_array().value(mark).end_array();
  w.end_object().end_object().end_object();
}

Pretokenizer pretokenizer_of(std::vector<SplitStep> steps, std::string_view name) {
  try {
    return Pretokenizer(std::move(steps));
  } catch (const Error& e) {
    throw_error(e.code(), "{}: {}", name, e.what());
  }
}

}  // namespace

void BpeParts::index_vocabulary(std::string_view name) {
  vocabulary.index();
  if (const auto id = vocabulary.twice()) {
    const std::string_view token = vocabulary[*id];
    throw_error(Exit::data, "{}: \"{}\" has two ids, {} and {}", name, token.substr(0, 40), *vocabulary.find(token),
                *id);
  }
}

void BpeParts::add_merge(std::string_view left, std::string_view right, std::string_view name) {
  const auto a = vocabulary.find(left), b = vocabulary.find(right);
  if (skip_impossible_merges && !(a && b)) return;
  std::string merged;
  merged.reserve(left.size() + right.size());
  const auto c = vocabulary.find(merged.append(left).append(right));
  if (!a || !b || !c)
    throw_error(Exit::data, "{}: merge {} (\"{}\" and \"{}\"): {} is not in the vocabulary", name, merges.size(),
                left.substr(0, 40), right.substr(0, 40),
                !a   ? "the first"
                : !b ? "the second"
                     : "the result");
  if (merges.size() == MergeTable::kMaxMerges)
    throw_error(Exit::data, "{}: more than {} merges", name, MergeTable::kMaxMerges);
  merges.push_back({*a, *b, *c});
}

Bpe::Bpe(BpeParts parts, std::string_view name)
    : Tokenizer(std::move(parts.vocabulary), std::move(parts.added)),
      pretokenizer_(pretokenizer_of(std::move(parts.steps), name)),
      merges_(std::move(parts.merges)),
      nfc_(parts.nfc),
      ignore_merges_(parts.ignore_merges),
      fuse_unknown_(parts.fuse_unknown),
      unknown_(parts.unknown) {
  static std::atomic<uint32_t> owners{0};
  owner_ = ++owners;
  for (size_t b = 0; b < 256; ++b) byte_ids_[b] = find(byte_alphabet()[b]).value_or(unknown_.value_or(-1));
  std::vector<std::pair<std::string, AddedToken>> normalized;
  for (const AddedToken& a : added()) {
    if (a.normalized) normalized.emplace_back(nfc_ ? to_nfc(token(a.id)) : token(a.id), a);
  }
  // Of tokens that normalisation makes equal, the first.
  std::stable_sort(normalized.begin(), normalized.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  const auto same = [](const auto& a, const auto& b) { return a.first == b.first; };
  normalized.erase(std::unique(normalized.begin(), normalized.end(), same), normalized.end());
  normalized_ = AddedTokenMatcher(std::move(normalized));
}

void Bpe::encode_stretch(std::string_view text, Specials specials, std::vector<int32_t>& out) const {
  std::string repaired, normalised;
  if (!is_utf8(text)) {
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
  const std::string_view spelled = vocabulary()[id];
  std::string bytes(spelled);  // it gets shorter
  size_t n = 0;
  for (size_t i = 0; i < spelled.size();) {
    if (spelled[i] > ' ' && spelled[i] < 0x7F) {  // most: they stand for themselves
      bytes[n++] = spelled[i++];
      continue;
    }
    const CodePoint c = code_point(spelled.data() + i);
    const int byte = byte_of(c.value);
    if (byte < 0) return std::string(spelled);  // a mark such as DeepSeek's stands for its own text
    bytes[n++] = static_cast<char>(byte);
    i += c.bytes;
  }
  bytes.resize(n);
  return bytes;
}

std::string Bpe::to_json() const {
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
  w.key("post_processor");
  if (const auto bos = special().add_bos ? special().bos : std::nullopt; bos && !token(*bos).empty()) {
    begin_with(w, token(*bos), *bos);
  } else {
    w.null();
  }
  w.key("decoder");
  byte_level(true);
  w.key("model").begin_object().member("type", "BPE");
  for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) null(key);
  w.key("unk_token");
  if (unknown_) {
    w.value(token(*unknown_));
  } else {
    w.null();
  }
  w.member("fuse_unk", fuse_unknown_).member("byte_fallback", false).member("ignore_merges", ignore_merges_);
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
