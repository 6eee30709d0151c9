// The filters by what they work on, one table each; find_filter (object.h) looks through all. Internal.
// docs: https://jinja.palletsprojects.com/templates/#builtin-filters; tojson is transformers'.
#pragma once

#include <map>
#include <string_view>

#include "ponder/text/jinja/object.h"

namespace ponder::text::jinja {

using FilterTable = std::map<std::string_view, Filter>;

const FilterTable& text_filters();
const FilterTable& number_filters();
const FilterTable& list_filters();

}  // namespace ponder::text::jinja
