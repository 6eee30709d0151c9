#include "ponder/base/tfevents.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <bit>
#include <cmath>

#include "ponder/base/error.h"

namespace ponder {
namespace {

constexpr std::array<uint32_t, 256> kCrcTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c & 1) ? (c >> 1) ^ 0x82F63B78u : c >> 1;
    table[i] = c;
  }
  return table;
}();

template <class T>
void append_fixed(std::string& out, T value) {
  for (size_t i = 0; i < sizeof value; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
}

void append_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

// Protobuf wire types: a key is field << 3 | type.
void append_varint_field(std::string& out, int field, uint64_t value) {
  append_varint(out, static_cast<uint64_t>(field) << 3);
  append_varint(out, value);
}
void append_double_field(std::string& out, int field, double value) {
  append_varint(out, static_cast<uint64_t>(field) << 3 | 1);
  append_fixed(out, std::bit_cast<uint64_t>(value));
}
void append_bytes_field(std::string& out, int field, std::string_view value) {
  append_varint(out, static_cast<uint64_t>(field) << 3 | 2);
  append_varint(out, value.size());
  out.append(value);
}
void append_float_field(std::string& out, int field, float value) {
  append_varint(out, static_cast<uint64_t>(field) << 3 | 5);
  append_fixed(out, std::bit_cast<uint32_t>(value));
}

std::string event_at(double wall_time, int64_t step) {
  std::string event;
  append_double_field(event, 1, wall_time);
  if (step != 0) append_varint_field(event, 2, static_cast<uint64_t>(step));
  return event;
}

std::string file_name(double wall_time) {
  static std::atomic<int> count{0};
  char host[64] = "localhost";
  ::gethostname(host, sizeof host - 1);
  for (char& c : host)
    if (c == '/') c = '-';
  return fmt::format("events.out.tfevents.{:010}.{}.{}.{}", static_cast<int64_t>(wall_time), host, ::getpid(), count++);
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t c = ~0u;
  for (const char byte : bytes) c = (c >> 8) ^ kCrcTable[(c ^ static_cast<uint8_t>(byte)) & 0xff];
  return ~c;
}

uint32_t masked_crc32c(std::string_view bytes) {
  const uint32_t c = crc32c(bytes);
  return ((c >> 15) | (c << 17)) + 0xa282ead8u;
}

TfEventWriter::TfEventWriter(const std::string& folder, double wall_time)
    : file_(join_path(folder, file_name(wall_time)), AppendFile::Format::binary) {
  std::string event = event_at(wall_time, 0);
  append_bytes_field(event, 3, "brain.Event:2");
  write_event(event);
}

void TfEventWriter::write_event(std::string_view event) {
  std::string length;
  append_fixed(length, static_cast<uint64_t>(event.size()));
  std::string frame = length;
  append_fixed(frame, masked_crc32c(length));
  frame.append(event);
  append_fixed(frame, masked_crc32c(event));
  file_.append(frame);
}

void TfEventWriter::scalars(int64_t step, double wall_time, std::span<const std::pair<std::string, double>> values) {
  std::string summary;
  for (const auto& [tag, value] : values) {
    std::string item;
    append_bytes_field(item, 1, tag);
    append_float_field(item, 2, static_cast<float>(value));
    append_bytes_field(summary, 1, item);
  }
  std::string event = event_at(wall_time, step);
  append_bytes_field(event, 5, summary);
  write_event(event);
}

void TfEventWriter::restart(int64_t step, double wall_time) {
  std::string session;
  append_varint_field(session, 1, 1);
  std::string event = event_at(wall_time, step);
  append_bytes_field(event, 7, session);
  write_event(event);
}

}  // namespace ponder
