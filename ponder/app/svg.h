// Line charts as SVG, for reports: a title, axes with round numbers, lines with bands or error bars, a legend.
//
// Colours are CSS classes (.c0 to .c7, .axis, .grid, .text), so that one style sheet serves light and dark pages.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ponder::app {

struct Series {
  std::string name;
  std::vector<double> x, y;        // where y is not finite the line breaks
  std::vector<double> error = {};  // half the length of error bars; empty: none
  bool dots = false;               // a dot at each point (few points), else a line alone
  bool dashed = false;
  int color = -1;  // class number; -1: the place in the chart
};

struct Chart {
  std::string title, note;  // note: small, at the right
  std::string x_label = "step";
  std::vector<Series> series;
  std::optional<double> y_min, y_max;  // else from the data
  bool log_y = false;
  bool stacked = false;  // series add up, as areas
};

constexpr double kChartWidth = 460, kChartHeight = 270;

// One <svg> element. A chart without points is "".
std::string chart_svg(const Chart& chart);
// Several charts in a file of their own, `columns` beside each other, with the style sheet in it.
std::string chart_sheet(const std::vector<Chart>& charts, int columns);
// The classes, light and dark.
std::string_view chart_style();

// About `wanted` round numbers (1, 2 or 5 times a power of ten) that span [low, high].
std::vector<double> round_ticks(double low, double high, int wanted);
std::string escape_xml(std::string_view text);

}  // namespace ponder::app
