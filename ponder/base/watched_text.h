// A text that tells somebody how far its reader is: parsers report the place of syntax errors only.
#pragma once

#include <cstddef>
#include <iterator>

namespace ponder {

// An input iterator over characters, from `p` on; `watch->step()` is called for each that is passed.
template <class Watch>
struct WatchedText {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  const char* p;
  Watch* watch;

  reference operator*() const { return *p; }
  WatchedText& operator++() {
    watch->step();
    ++p;
    return *this;
  }
  bool operator==(const WatchedText& other) const { return p == other.p; }
  bool operator!=(const WatchedText& other) const { return p != other.p; }
};

}  // namespace ponder
