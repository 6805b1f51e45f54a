#pragma once

// Plots as self-contained SVG: no scripts, no fonts, nothing from elsewhere. Pure.

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace baton::cli {

// & < > " ' as entities; control characters as spaces.
std::string HtmlEscaped(std::string_view text);

struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;  // those that are not finite are left out
};

struct MarkedPoint {
  std::string name;
  double x = 0, y = 0;
};

struct LinePlot {
  std::string title, x_label, y_label;
  std::vector<Series> series;
  std::vector<MarkedPoint> marks;
};
std::string LinePlotSvg(const LinePlot& plot);

// values[row][column], rows and columns numbered from 1, row 1 at the bottom. Darker is more. One
// cell is outlined.
struct HeatMap {
  std::string title, x_label, y_label;
  std::vector<std::vector<double>> values;
  int64_t chosen_row = 0, chosen_column = 0;  // 0: none
};
std::string HeatMapSvg(const HeatMap& map);

// Round numbers (1, 2, 5 times a power of ten) from 0 to at least `largest`, four to eight of them.
std::vector<double> AxisTicks(double largest);

}  // namespace baton::cli
