// Strings as Python sees them: by code points, over UTF-8. A byte that is no UTF-8 counts as one code point.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ponder::text::jinja {

struct CodePoint {
  char32_t value;
  size_t bytes;
};
CodePoint code_point_at(std::string_view text, size_t at);
size_t count_code_points(std::string_view text);
// The bytes of each code point.
std::vector<std::string_view> code_points(std::string_view text);
void append_utf8(std::string& out, char32_t c);

// str.isspace, str.isprintable of one code point; letters and cases after the C library's Unicode tables.
bool is_space(char32_t c);
bool is_printable(char32_t c);
bool is_alpha(char32_t c);
bool is_digit(char32_t c);
bool is_upper(char32_t c);
bool is_lower(char32_t c);

enum class Side { left, right, both };
// Without `chars`: white space.
std::string_view strip(std::string_view text, Side side, std::optional<std::string_view> chars = {});

std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
std::string capitalize(std::string_view text);
std::string swap_case(std::string_view text);
std::string title_method(std::string_view text);  // str.title: a word starts after anything that is no letter
std::string title_filter(std::string_view text);  // Jinja's: a word starts after space, - ( { [ <

// The first place at or after `from`, or npos. In linear time whatever the texts, which std::string::find is not.
size_t find_text(std::string_view text, std::string_view sought, size_t from = 0);

// At most `limit` cuts (below 0: all), from the left or from the right.
std::vector<std::string_view> split(std::string_view text, std::string_view separator, int64_t limit, bool from_right);
std::vector<std::string_view> split_space(std::string_view text, int64_t limit, bool from_right);
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);
// At most `limit` replacements (below 0: all). The length of the result comes first, so that it can be bounded.
size_t replaced_size(std::string_view text, std::string_view from, std::string_view to, int64_t limit);
std::string replace(std::string_view text, std::string_view from, std::string_view to, int64_t limit);

// repr of a string: quotes and escapes as Python chooses them.
std::string quoted(std::string_view text);

}  // namespace ponder::text::jinja
