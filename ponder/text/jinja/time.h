// Dates in templates. Internal.
#pragma once

#include <ctime>
#include <string>

namespace ponder::text::jinja {

// strftime in English, of a time without a zone (%z and %Z are empty, %f is zero), as Python's datetime.now() has it.
std::string format_time(const std::string& format, std::tm when);
std::tm local_time_now();

}  // namespace ponder::text::jinja
