#include "cli/svg_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>

namespace baton::cli {
namespace {

constexpr double kWidth = 640, kHeight = 400;
constexpr double kLeft = 70, kRight = 150, kTop = 40, kBottom = 55;
constexpr double kPlotWidth = kWidth - kLeft - kRight, kPlotHeight = kHeight - kTop - kBottom;

// Of Okabe and Ito (2008): told apart by eyes of every kind.
constexpr std::array<std::string_view, 6> kColours = {"#0072B2", "#D55E00", "#009E73",
                                                      "#CC79A7", "#E69F00", "#56B4E9"};

std::string Number(double value) { return fmt::format("{:.4g}", value); }

class Svg {
 public:
  Svg() {
    Add("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" role=\"img\" "
        "font-family=\"sans-serif\" font-size=\"12\">\n",
        kWidth, kHeight);
  }
  std::string Finish() && { return std::move(text_) + "</svg>\n"; }

  void Text(double x, double y, std::string_view text, std::string_view style) {
    Add("<text x=\"{:.1f}\" y=\"{:.1f}\" {}>{}</text>\n", x, y, style, HtmlEscaped(text));
  }
  void Line(double x1, double y1, double x2, double y2, std::string_view style) {
    Add("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" {}/>\n", x1, y1, x2, y2,
        style);
  }
  template <typename... Arguments>
  void Add(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    fmt::format_to(std::back_inserter(text_), format, std::forward<Arguments>(arguments)...);
  }
  void Titles(std::string_view title, std::string_view x_label, std::string_view y_label) {
    Text(kLeft, 20, title, "font-size=\"14\" font-weight=\"bold\"");
    Text(kLeft + kPlotWidth / 2, kHeight - 12, x_label, "text-anchor=\"middle\"");
    const double middle = kTop + kPlotHeight / 2;
    Text(16, middle, y_label,
         fmt::format("text-anchor=\"middle\" transform=\"rotate(-90 16 {:.1f})\"", middle));
  }

 private:
  std::string text_;
};

struct Scale {
  double largest_x = 0, largest_y = 0;
  double X(double x) const { return kLeft + x / largest_x * kPlotWidth; }
  double Y(double y) const { return kTop + kPlotHeight - y / largest_y * kPlotHeight; }
};

void DrawAxes(Svg& svg, const std::vector<double>& x_ticks, const std::vector<double>& y_ticks,
              const Scale& scale) {
  for (const double x : x_ticks) {
    svg.Line(scale.X(x), kTop, scale.X(x), kTop + kPlotHeight, "stroke=\"#ddd\"");
    svg.Text(scale.X(x), kTop + kPlotHeight + 18, Number(x), "text-anchor=\"middle\"");
  }
  for (const double y : y_ticks) {
    svg.Line(kLeft, scale.Y(y), kLeft + kPlotWidth, scale.Y(y), "stroke=\"#ddd\"");
    svg.Text(kLeft - 8, scale.Y(y) + 4, Number(y), "text-anchor=\"end\"");
  }
}

bool IsFinite(const std::pair<double, double>& point) {
  return std::isfinite(point.first) && std::isfinite(point.second);
}

}  // namespace

std::string HtmlEscaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += static_cast<unsigned char>(c) < 32 && c != '\n' ? ' ' : c;
    }
  }
  return out;
}

std::vector<double> AxisTicks(double largest) {
  if (!std::isfinite(largest) || largest <= 0) largest = 1;
  const double power = std::pow(10, std::floor(std::log10(largest / 4)));
  double step = power;
  for (const double factor : {1.0, 2.0, 5.0, 10.0}) {
    step = factor * power;
    if (largest / step <= 7) break;
  }
  std::vector<double> ticks = {0};
  while (ticks.back() < largest * (1 - 1e-9)) {
    ticks.push_back(step * static_cast<double>(ticks.size()));
  }
  return ticks;
}

std::string LinePlotSvg(const LinePlot& plot) {
  Scale scale;
  for (const Series& series : plot.series) {
    for (const auto& point : series.points) {
      if (!IsFinite(point)) continue;
      scale.largest_x = std::max(scale.largest_x, point.first);
      scale.largest_y = std::max(scale.largest_y, point.second);
    }
  }
  const std::vector<double> x_ticks = AxisTicks(scale.largest_x);
  const std::vector<double> y_ticks = AxisTicks(scale.largest_y);
  scale = {.largest_x = x_ticks.back(), .largest_y = y_ticks.back()};
  Svg svg;
  svg.Titles(plot.title, plot.x_label, plot.y_label);
  DrawAxes(svg, x_ticks, y_ticks, scale);
  for (size_t i = 0; i < plot.series.size(); ++i) {
    const Series& series = plot.series[i];
    const std::string_view colour = kColours[i % kColours.size()];
    // Every other one dashed, so that what lies below shows.
    const std::string style = fmt::format("stroke=\"{}\" stroke-width=\"2\"{}", colour,
                                          i % 2 == 1 ? " stroke-dasharray=\"7 5\"" : "");
    svg.Add("<polyline fill=\"none\" {} points=\"", style);
    for (const auto& point : series.points) {
      if (IsFinite(point)) svg.Add("{:.1f},{:.1f} ", scale.X(point.first), scale.Y(point.second));
    }
    svg.Add("\"/>\n");
    const double y = kTop + 14 + 18 * static_cast<double>(i);
    const double x = kLeft + kPlotWidth + 12;
    svg.Line(x, y - 4, x + 18, y - 4, style);
    svg.Text(x + 24, y, series.name, "");
  }
  for (const MarkedPoint& mark : plot.marks) {
    if (!std::isfinite(mark.x) || !std::isfinite(mark.y)) continue;
    svg.Add("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"5\" fill=\"#000\"/>\n", scale.X(mark.x),
            scale.Y(mark.y));
    svg.Text(scale.X(mark.x) + 8, scale.Y(mark.y) + 16, mark.name, "");
  }
  return std::move(svg).Finish();
}

std::string HeatMapSvg(const HeatMap& map) {
  Svg svg;
  svg.Titles(map.title, map.x_label, map.y_label);
  const size_t rows = map.values.size();
  const size_t columns = rows > 0 ? map.values[0].size() : 0;
  double largest = 0;
  for (const auto& row : map.values) {
    for (const double value : row) largest = std::max(largest, value);
  }
  const double width = kPlotWidth / static_cast<double>(columns);
  const double height = kPlotHeight / static_cast<double>(rows);
  for (size_t row = 0; row < rows; ++row) {
    const double y = kTop + kPlotHeight - static_cast<double>(row + 1) * height;
    svg.Text(kLeft - 8, y + height / 2 + 4, fmt::format("{}", row + 1), "text-anchor=\"end\"");
    for (size_t column = 0; column < columns; ++column) {
      const double value = map.values[row][column];
      const double share = largest > 0 ? value / largest : 0;
      const double x = kLeft + static_cast<double>(column) * width;
      svg.Add(
          "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" "
          "fill=\"rgb({:.0f},{:.0f},{:.0f})\" stroke=\"#fff\"><title>{} : {}, {}</title>"
          "</rect>\n",
          x, y, width, height, 255 - 255 * share, 255 - 141 * share, 255 - 77 * share, row + 1,
          column + 1, Number(value));
      svg.Text(x + width / 2, y + height / 2 + 4, fmt::format("{:.3g}", value),
               fmt::format("text-anchor=\"middle\" font-size=\"10\" fill=\"{}\"",
                           share > 0.6 ? "#fff" : "#000"));
    }
  }
  for (size_t column = 0; column < columns; ++column) {
    svg.Text(kLeft + (static_cast<double>(column) + 0.5) * width, kTop + kPlotHeight + 18,
             fmt::format("{}", column + 1), "text-anchor=\"middle\"");
  }
  if (map.chosen_row > 0 && map.chosen_column > 0) {
    svg.Add(
        "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"none\" "
        "stroke=\"#D55E00\" stroke-width=\"3\"/>\n",
        kLeft + static_cast<double>(map.chosen_column - 1) * width,
        kTop + kPlotHeight - static_cast<double>(map.chosen_row) * height, width, height);
  }
  return std::move(svg).Finish();
}

}  // namespace baton::cli
