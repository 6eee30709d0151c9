#include "ponder/text/jinja/time.h"

#include <locale.h>
#include <time.h>

#include "ponder/text/jinja/value.h"

namespace ponder::text::jinja {

std::tm local_time_now() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  return local;
}

std::string format_time(const std::string& format, std::tm when) {
  constexpr size_t kMaxFormat = 1000, kMaxResult = 16384;
  if (format.size() > kMaxFormat) fail("strftime_now: a format of more than {} bytes", kMaxFormat);
  if (format.find('\0') != format.npos) fail("strftime_now: a NUL in the format");
  std::string adapted = "|";  // so that the result is never empty, which strftime cannot tell from too long
  for (size_t i = 0; i < format.size(); ++i) {
    const char next = format[i] == '%' && i + 1 < format.size() ? format[i + 1] : '\0';
    if (next == '\0') {
      adapted += format[i];
      continue;
    }
    ++i;
    if (next == 'f')
      adapted += "000000";
    else if (next != 'z' && next != 'Z')
      (adapted += '%') += next;
  }
  // The day of the week and of the year follow from the date.
  std::tm complete = when;
  const std::time_t seconds = timegm(&complete);
  std::tm derived{};
  gmtime_r(&seconds, &derived);
  when.tm_wday = derived.tm_wday;
  when.tm_yday = derived.tm_yday;
  static const locale_t english = newlocale(LC_ALL_MASK, "C", nullptr);
  std::string out(kMaxResult, '\0');
  const size_t n = strftime_l(out.data(), out.size(), adapted.c_str(), &when, english);
  if (n == 0) fail("strftime_now: the result is longer than {} bytes", kMaxResult);
  return out.substr(1, n - 1);
}

}  // namespace ponder::text::jinja
