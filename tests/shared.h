// Reference data that lies beside the checkout, if at all: $PONDER_SHARED, else ../shared.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

namespace ponder::test {

inline std::filesystem::path shared_folder() {
  const char* env = std::getenv("PONDER_SHARED");
  return env && *env ? env : "../shared";
}

// Sorted entries of a folder below it; empty where it is absent.
inline std::vector<std::filesystem::path> shared_entries(const std::string& below) {
  std::vector<std::filesystem::path> list;
  std::error_code error;
  for (const auto& e : std::filesystem::directory_iterator(shared_folder() / below, error)) list.push_back(e.path());
  std::sort(list.begin(), list.end());
  return list;
}

#define PONDER_NEED_SHARED(path) \
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no reference data at " << (path) << " (set PONDER_SHARED)"

}  // namespace ponder::test
