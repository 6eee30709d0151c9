// TensorBoard event files, written by hand: TFRecord frames around three small protobuf messages (interfaces:
// docs/formats.md).
//
// frame = u64 length | masked crc32c(length) | data | masked crc32c(data), little-endian.
// Event { 1 double wall_time, 2 int64 step, 3 string file_version, 5 Summary, 7 SessionLog }, Summary { 1 repeated
// Value }, Value { 1 string tag, 2 float simple_value }, SessionLog { 1 enum status (START = 1) }.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "ponder/base/file.h"

namespace ponder {

class TfEventWriter {
 public:
  // A new file events.out.tfevents.<seconds>.<host>.<pid>.<n> in the folder. Times are Unix seconds.
  TfEventWriter(const std::string& folder, double wall_time);

  void scalars(int64_t step, double wall_time, std::span<const std::pair<std::string, double>> values);
  // After a resume: TensorBoard forgets what earlier files say from `step` on.
  void restart(int64_t step, double wall_time);
  const std::string& path() const { return file_.path(); }

 private:
  void write_event(std::string_view event);
  AppendFile file_;
};

// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78) and TFRecord's mask of it.
uint32_t crc32c(std::string_view bytes);
uint32_t masked_crc32c(std::string_view bytes);

}  // namespace ponder
