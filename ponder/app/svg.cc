#include "ponder/app/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "ponder/base/utf8.h"

namespace ponder::app {
namespace {

constexpr double kLeft = 52, kRight = 14, kTop = 50, kBottom = 34;
constexpr size_t kMostPoints = 600;  // of a line: more than there are pixels

struct Range {
  double low = 0, high = 1;
  double to(double value, double from, double until) const {
    return from + (value - low) / (high - low) * (until - from);
  }
};

Range widened(double low, double high) {
  if (!(high > low)) {
    const double pad = low == 0 ? 1 : std::abs(low) * 0.1;
    return {low - pad, high + pad};
  }
  return {low, high};
}

// Numbers as people write them on an axis.
std::string tick_text(double x) {
  if (x != 0 && (std::abs(x) >= 1e6 || std::abs(x) < 1e-3)) return fmt::format("{:.0e}", x);
  if (std::abs(x) >= 1e4) return fmt::format("{:g}k", x / 1e3);
  return fmt::format("{:.6g}", x);
}

// Means of neighbours where there are more points than pixels.
Series thinned(const Series& s) {
  if (s.x.size() <= kMostPoints || !s.error.empty()) return s;
  Series out = s;
  out.x.clear(), out.y.clear();
  for (size_t i = 0; i < kMostPoints; ++i) {
    const size_t begin = i * s.x.size() / kMostPoints, end = (i + 1) * s.x.size() / kMostPoints;
    double x = 0, y = 0, n = 0;
    for (size_t j = begin; j < end; ++j)
      if (std::isfinite(s.y[j])) x += s.x[j], y += s.y[j], ++n;
    if (n > 0) out.x.push_back(x / n), out.y.push_back(y / n);
  }
  return out;
}

class Drawing {
 public:
  Drawing(const Chart& chart, double x, double y) : chart_(chart), x_(x), y_(y) {
    for (const Series& s : chart.series) series_.push_back(thinned(s));
    if (chart.stacked) stack();
    find_ranges();
  }
  bool empty() const { return !any_; }

  std::string inner() {
    text(kLeft, 18, "title", "start", chart_.title);
    axes();
    for (size_t i = 0; i < series_.size(); ++i) draw(i);
    legend();
    return out_;
  }

 private:
  template <class... Args>
  void put(fmt::format_string<Args...> format, Args&&... args) {
    out_ += fmt::format(format, std::forward<Args>(args)...);
  }
  double px(double x) const { return x_ + x_range_.to(x, kLeft, kChartWidth - kRight); }
  double value(double y) const { return chart_.log_y ? std::log10(y) : y; }
  double py(double y) const {
    return y_ + y_range_.to(std::clamp(value(y), y_range_.low, y_range_.high), kChartHeight - kBottom, kTop);
  }
  bool shown(double y) const { return std::isfinite(y) && (!chart_.log_y || y > 0); }
  int color(size_t i) const { return series_[i].color >= 0 ? series_[i].color : static_cast<int>(i % 8); }

  void text(double x, double y, const char* css, const char* anchor, const std::string& what) {
    put("<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"{}\" text-anchor=\"{}\">{}</text>", x_ + x, y_ + y, css, anchor,
        escape_xml(what));
  }

  void stack() {
    for (size_t i = 1; i < series_.size(); ++i)
      for (size_t j = 0; j < std::min(series_[i].y.size(), series_[i - 1].y.size()); ++j)
        series_[i].y[j] = (std::isfinite(series_[i].y[j]) ? series_[i].y[j] : 0) + series_[i - 1].y[j];
  }

  void find_ranges() {
    double x0 = INFINITY, x1 = -INFINITY, y0 = INFINITY, y1 = -INFINITY;
    for (const Series& s : series_)
      for (size_t i = 0; i < s.y.size(); ++i) {
        if (!shown(s.y[i])) continue;
        any_ = true;
        const double e = s.error.empty() ? 0 : s.error[i];
        x0 = std::min(x0, s.x[i]), x1 = std::max(x1, s.x[i]);
        y0 = std::min(y0, value(s.y[i]) - e), y1 = std::max(y1, value(s.y[i]) + e);
      }
    if (!any_) return;
    if (chart_.stacked && !chart_.y_min) y0 = 0;
    if (chart_.y_min) y0 = value(*chart_.y_min);
    if (chart_.y_max) y1 = value(*chart_.y_max);
    x_range_ = widened(x0, x1);
    y_range_ = widened(y0, y1);
    if (!chart_.y_max) y_range_.high += 0.05 * (y_range_.high - y_range_.low);
    if (!chart_.y_min && !chart_.stacked && y_range_.low != 0) y_range_.low -= 0.05 * (y_range_.high - y_range_.low);
  }

  void axes() {
    const double left = x_ + kLeft, right = x_ + kChartWidth - kRight, bottom = y_ + kChartHeight - kBottom;
    for (const double t : round_ticks(y_range_.low, y_range_.high, 5)) {
      const double y = y_ + y_range_.to(t, kChartHeight - kBottom, kTop);
      put("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" class=\"grid\"/>", left, y, right, y);
      text(kLeft - 6, y - y_ + 4, "text", "end", tick_text(chart_.log_y ? std::pow(10, t) : t));
    }
    for (const double t : round_ticks(x_range_.low, x_range_.high, 6))
      text(px(t) - x_, kChartHeight - kBottom + 16, "text", "middle", tick_text(t));
    put("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" class=\"axis\"/>", left, bottom, right, bottom);
    text(kChartWidth - kRight, kChartHeight - 4, "text", "end", chart_.x_label);
  }

  void draw(size_t i) {
    const Series& s = series_[i];
    const int c = color(i);
    if (chart_.stacked) return area(i);
    std::string path;
    bool pen = false;
    for (size_t j = 0; j < s.y.size(); ++j) {
      if (!shown(s.y[j])) {
        pen = false;
        continue;
      }
      path += fmt::format("{}{:.1f} {:.1f}", pen ? "L" : "M", px(s.x[j]), py(s.y[j]));
      pen = true;
    }
    if (!path.empty())
      put("<path d=\"{}\" class=\"line c{}\"{}/>", path, c, s.dashed ? " stroke-dasharray=\"5 4\"" : "");
    for (size_t j = 0; j < s.y.size() && (s.dots || !s.error.empty()); ++j) {
      if (!shown(s.y[j])) continue;
      const double x = px(s.x[j]);
      if (!s.error.empty() && s.error[j] > 0)
        put("<line x1=\"{0:.1f}\" y1=\"{1:.1f}\" x2=\"{0:.1f}\" y2=\"{2:.1f}\" class=\"line c{3}\"/>", x,
            py(s.y[j] - s.error[j]), py(s.y[j] + s.error[j]), c);
      put("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" class=\"dot c{}\"><title>{} {:g}: {:.4g}</title></circle>", x,
          py(s.y[j]), c, escape_xml(s.name), s.x[j], s.y[j]);
    }
  }

  void area(size_t i) {
    const Series& s = series_[i];
    std::string path;
    for (size_t j = 0; j < s.y.size(); ++j)
      path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", px(s.x[j]), py(s.y[j]));
    for (size_t j = s.y.size(); j-- > 0;)
      path += fmt::format("L{:.1f} {:.1f}", px(s.x[j]),
                          py(i == 0 ? y_range_.low : series_[i - 1].y[std::min(j, series_[i - 1].y.size() - 1)]));
    put("<path d=\"{}Z\" class=\"area c{}\"/>", path, color(i));
  }

  void legend() {
    if (series_.size() == 1 && chart_.note.empty()) return;
    double x = kLeft;
    for (size_t i = 0; i < series_.size(); ++i) {
      if (series_[i].y.empty()) continue;
      const double width = 22 + 6.2 * static_cast<double>(series_[i].name.size());
      put("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" class=\"line key c{}\"{}/>", x_ + x, y_ + 32,
          x_ + x + 14, y_ + 32, color(i), series_[i].dashed ? " stroke-dasharray=\"4 3\"" : "");
      text(x + 18, 36, "text", "start", series_[i].name);
      x += width + 6;
    }
    if (!chart_.note.empty()) text(kChartWidth - kRight, 18, "text", "end", chart_.note);
  }

  const Chart& chart_;
  double x_, y_;
  std::vector<Series> series_;
  Range x_range_, y_range_;
  bool any_ = false;
  std::string out_;
};

}  // namespace

std::vector<double> round_ticks(double low, double high, int wanted) {
  std::vector<double> ticks;
  if (!(high > low) || !std::isfinite(low) || !std::isfinite(high)) return ticks;
  const double raw = (high - low) / wanted, power = std::pow(10, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double m : {1.0, 2.0, 5.0})
    if (m * power >= raw * 0.999) {
      step = m * power;
      break;
    }
  // Counted in whole steps, so that 0.3 is not 0.30000000000000004.
  for (auto k = static_cast<int64_t>(std::ceil(low / step - 1e-9)); static_cast<double>(k) * step <= high + 1e-9 * step;
       ++k)
    ticks.push_back(step < 1 ? static_cast<double>(k) / std::round(1 / step) : static_cast<double>(k) * step);
  return ticks;
}

std::string escape_xml(std::string_view text) {
  std::string out;
  for (const char c : utf8_repaired(text)) {
    switch (c) {
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '&': out += "&amp;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out += static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t' ? ' ' : c;
    }
  }
  return out;
}

std::string_view chart_style() {
  return R"(
.chart { font: 11px system-ui, sans-serif; }
.chart .text { fill: #667; } .chart .title { fill: #223; font-size: 13px; font-weight: 600; }
.chart .grid { stroke: #888; stroke-opacity: .2; } .chart .axis { stroke: #889; }
.chart .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; } .chart .key { stroke-width: 3; } .chart .area { stroke: none; opacity: .75; }
.chart .c0 { stroke: #2166c4; } .chart .c1 { stroke: #d9552b; } .chart .c2 { stroke: #1d9a6c; } .chart .c3 { stroke: #9b4fc0; }
.chart .c4 { stroke: #b98a00; } .chart .c5 { stroke: #c93a72; } .chart .c6 { stroke: #4a8fa8; } .chart .c7 { stroke: #777; }
.chart .dot.c0, .chart .area.c0 { fill: #2166c4; } .chart .dot.c1, .chart .area.c1 { fill: #d9552b; }
.chart .dot.c2, .chart .area.c2 { fill: #1d9a6c; } .chart .dot.c3, .chart .area.c3 { fill: #9b4fc0; }
.chart .dot.c4, .chart .area.c4 { fill: #b98a00; } .chart .dot.c5, .chart .area.c5 { fill: #c93a72; }
.chart .dot.c6, .chart .area.c6 { fill: #4a8fa8; } .chart .dot.c7, .chart .area.c7 { fill: #777; }
@media (prefers-color-scheme: dark) {
  .chart .text { fill: #99a; } .chart .title { fill: #dde; } .chart .axis { stroke: #778; }
  .chart .c0 { stroke: #6aa5f5; } .chart .c1 { stroke: #ff8a5c; } .chart .c2 { stroke: #4fd0a0; } .chart .c3 { stroke: #c893ea; }
  .chart .c4 { stroke: #e3bd4d; } .chart .c5 { stroke: #f57fae; } .chart .c6 { stroke: #86c5dc; } .chart .c7 { stroke: #aaa; }
  .chart .dot.c0, .chart .area.c0 { fill: #6aa5f5; } .chart .dot.c1, .chart .area.c1 { fill: #ff8a5c; }
  .chart .dot.c2, .chart .area.c2 { fill: #4fd0a0; } .chart .dot.c3, .chart .area.c3 { fill: #c893ea; }
}
)";
}

std::string chart_svg(const Chart& chart) {
  Drawing drawing(chart, 0, 0);
  if (drawing.empty()) return "";
  return fmt::format("<svg class=\"chart\" viewBox=\"0 0 {:g} {:g}\" role=\"img\" aria-label=\"{}\">{}</svg>\n",
                     kChartWidth, kChartHeight, escape_xml(chart.title), drawing.inner());
}

std::string chart_sheet(const std::vector<Chart>& charts, int columns) {
  std::string inner;
  int shown = 0;
  for (const Chart& chart : charts) {
    Drawing drawing(chart, kChartWidth * (shown % columns), kChartHeight * (shown / columns));
    if (drawing.empty()) continue;
    inner += drawing.inner() + "\n";
    ++shown;
  }
  const double width = kChartWidth * std::min(columns, std::max(1, shown)),
               height = kChartHeight * ((shown + columns - 1) / columns);
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" width=\"{0:g}\" height=\"{1:g}\" viewBox=\"0 0 {0:g} "
      "{1:g}\">\n"
      "<style>{2}.chart .back {{ fill: #fff; }} @media (prefers-color-scheme: dark) {{ .chart .back {{ fill: #14161c; "
      "}} }}</style>\n"
      "<rect class=\"back\" width=\"100%\" height=\"100%\"/>\n{3}</svg>\n",
      width, height, chart_style(), inner);
}

}  // namespace ponder::app
