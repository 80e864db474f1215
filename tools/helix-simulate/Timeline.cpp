//===- Timeline.cpp - A simulated step as a picture ------------------------===//
#include "Simulate.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <set>

namespace helix {
namespace {

constexpr double kWidth = 1400, kLeft = 96, kRight = 24, kRowTop = 106, kRowHeight = 56, kRowGap = 16;
constexpr double kFontSize = 11, kLetter = 6.1; // a letter's width at that size, about

struct Colour {
  std::string_view kind;
  const char *fill, *text;
};
constexpr std::array<Colour, 7> kColours = {{
    {"attention", "#2f6fb7", "#ffffff"},
    {"linear", "#3d9970", "#ffffff"},
    {"elementwise", "#d9c58b", "#3a3320"},
    {"copy", "#9aa3b2", "#1d2430"},
    {"all_to_all", "#dd6b2f", "#ffffff"},
    {"all_reduce", "#b23a63", "#ffffff"},
    {"wait", "#eceef2", "#5c6470"},
}};

const Colour &colourOf(std::string_view kind) {
  for (const Colour &colour : kColours)
    if (colour.kind == kind)
      return colour;
  return kColours.back();
}

/// The start of a text as XML; what is not ASCII becomes a question mark.
std::string escaped(std::string_view text) {
  std::string result;
  for (char letter : text.substr(0, 200)) {
    if (letter == '&')
      result += "&amp;";
    else if (letter == '<')
      result += "&lt;";
    else if (letter == '>')
      result += "&gt;";
    else if (letter == '"')
      result += "&quot;";
    else
      result += letter < 32 || letter > 126 ? '?' : letter;
  }
  return result;
}

/// Microseconds with as many digits as the step between ticks needs.
std::string ticks(double microseconds, double step) {
  std::array<char, 64> buffer;
  std::snprintf(buffer.data(), buffer.size(), "%.*f", step >= 1 ? 0 : int(std::ceil(-std::log10(step))), microseconds);
  return buffer.data();
}

/// 1, 2 or 5 times a power of ten, so that there are about ten ticks.
double tickStep(double span) {
  double power = std::pow(10, std::floor(std::log10(span / 10)));
  for (double factor : {1.0, 2.0, 5.0})
    if (span / (factor * power) <= 12)
      return factor * power;
  return 10 * power;
}

struct Timeline {
  const Step &step;
  const perf::Program &program;
  const std::vector<perf::Timing> &timings;
  Range layers; ///< shown; first > last: the whole step
  double begin = 0, end = 0;
  std::string svg;

  /// Whether to tell the critical path: of one stream it is all there is.
  bool outlined() const { return program.streams > 1; }
  bool whole() const { return layers.first > layers.last; }
  double x(double seconds) const {
    return kLeft + (std::clamp(seconds, begin, end) - begin) / (end - begin) * (kWidth - kLeft - kRight);
  }
  double rowY(uint32_t stream) const { return kRowTop + stream * (kRowHeight + kRowGap); }
  double bottom() const { return rowY(program.streams) - kRowGap; }

  /// The time that the shown layers take.
  bool findSpan() {
    end = whole() ? step.simulation.seconds : 0;
    begin = whole() ? 0 : INFINITY;
    for (size_t i = 0; i < timings.size() && !whole(); ++i) {
      int32_t layer = program.commands[i].layer;
      if (layer < layers.first || layer > layers.last)
        continue;
      begin = std::min(begin, timings[i].start);
      end = std::max(end, timings[i].end);
    }
    return begin < end;
  }

  void drawFrame() {
    svg += format("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" font-family=\"Helvetica, Arial, "
                  "'DejaVu Sans', "
                  "sans-serif\" font-size=\"%.0f\">\n",
                  kWidth, bottom() + 96, kFontSize);
    svg += format("<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n");
    svg += format("<text x=\"%.0f\" y=\"30\" font-size=\"17\" font-weight=\"bold\" fill=\"#1d2430\">%s on %s</text>\n",
                  kLeft, escaped(step.artifact.substr(step.artifact.rfind('/') + 1)).c_str(),
                  escaped(step.hardware.name).c_str());
    std::string shown = whole() ? "the whole step"
                        : layers.first == layers.last
                            ? "layer " + std::to_string(layers.first)
                            : "layers " + std::to_string(layers.first) + " to " + std::to_string(layers.last);
    svg += format(
        "<text x=\"%.0f\" y=\"50\" font-size=\"12\" fill=\"#5c6470\">%s, %llu x %llu tokens, tpa %u x kvp %u; %s: "
        "%.1f of %.1f us; exposed communication of the step %.1f us</text>\n",
        kLeft, step.entry == artifact::EntryKind::Decode ? "decode" : "prefill", (unsigned long long)program.sequences,
        (unsigned long long)step.context, step.tpa, step.kvp, shown.c_str(), (end - begin) * 1e6,
        step.simulation.seconds * 1e6, step.simulation.exposedSeconds * 1e6);
  }

  void drawAxis() {
    double span = (end - begin) * 1e6, every = tickStep(span);
    for (double tick = 0; tick <= span * (1 + 1e-9); tick += every) {
      double at = x(begin + tick / 1e6);
      svg += format("<line x1=\"%.2f\" y1=\"%.0f\" x2=\"%.2f\" y2=\"%.0f\" stroke=\"#dfe3ea\"/>\n", at, kRowTop - 6, at,
                    bottom() + 6);
      svg += format("<text x=\"%.2f\" y=\"%.0f\" text-anchor=\"middle\" fill=\"#5c6470\">%s</text>\n", at,
                    bottom() + 22, ticks(tick, every).c_str());
    }
    svg += format("<text x=\"%.0f\" y=\"%.0f\" text-anchor=\"end\" fill=\"#5c6470\">us</text>\n", kLeft - 14,
                  bottom() + 22);
  }

  /// A bracket over each layer, from its first command to the first of the next.
  void drawLayers() {
    int32_t layer = -1;
    double from = 0;
    bool shaded = false;
    auto close = [&](double to) {
      if (layer >= 0 && to > begin && from < end && x(to) - x(from) > 1) {
        double left = x(from), width = x(to) - left;
        svg += format("<rect x=\"%.2f\" y=\"72\" width=\"%.2f\" height=\"18\" fill=\"%s\"/>\n", left, width,
                      shaded ? "#e3e8f0" : "#f0f2f6");
        if (width > 22)
          svg += format("<text x=\"%.2f\" y=\"85\" text-anchor=\"middle\" fill=\"#3a4250\">%s%d</text>\n",
                        left + width / 2, width > 60 ? "layer " : "", layer);
      }
      shaded = !shaded;
    };
    double last = 0;
    for (size_t i = 0; i < timings.size(); ++i) {
      const perf::Command &command = program.commands[i];
      if (command.stream != 0 || command.layer == layer)
        continue;
      close(timings[i].start);
      layer = command.layer;
      from = timings[i].start;
    }
    for (const perf::Timing &timing : timings)
      last = std::max(last, timing.end);
    close(last);
  }

  void drawCommands() {
    std::set<uint32_t> critical;
    for (const perf::Place &place : step.simulation.criticalPath)
      if (place.rank == 0 && outlined())
        critical.insert(place.command);
    for (uint32_t stream = 0; stream < program.streams; ++stream) {
      std::string name = stream == 0 ? "compute" : stream == 1 ? "comm" : "stream " + std::to_string(stream);
      svg += format("<rect x=\"%.0f\" y=\"%.0f\" width=\"%.0f\" height=\"%.0f\" fill=\"#f7f8fa\"/>\n", kLeft,
                    rowY(stream), kWidth - kLeft - kRight, kRowHeight);
      svg += format("<text x=\"%.0f\" y=\"%.0f\" text-anchor=\"end\" font-size=\"12\" fill=\"#1d2430\">%s</text>\n",
                    kLeft - 10, rowY(stream) + kRowHeight / 2 + 4, name.c_str());
    }
    // What was waited for lies behind what ran, borders and all.
    for (bool waits : {true, false})
      for (uint32_t i = 0; i < timings.size(); ++i)
        if (std::holds_alternative<perf::Wait>(program.commands[i].work) == waits)
          drawCommand(i, critical.count(i) != 0);
  }

  void drawCommand(uint32_t i, bool onPath) {
    const perf::Command &command = program.commands[i];
    const perf::Timing &timing = timings[i];
    if (timing.end <= begin || timing.start >= end || timing.end == timing.start)
      return;
    std::string_view kind = kindOf(command);
    const Colour &colour = colourOf(kind);
    double left = x(timing.start), width = std::max(0.4, x(timing.end) - left), top = rowY(command.stream);
    bool wait = kind == "wait";
    svg += format("<rect x=\"%.2f\" y=\"%.0f\" width=\"%.2f\" height=\"%.0f\" fill=\"%s\" stroke=\"%s\" "
                  "stroke-width=\"%s\"><title>%s %s: %.3f us from %.3f us%s</title></rect>\n",
                  left, top + (wait ? 20 : 4), width, kRowHeight - (wait ? 40 : 8), colour.fill,
                  onPath && !wait ? "#1d2430" : "#ffffff",
                  width < 2         ? "0"
                  : onPath && !wait ? "1.2"
                                    : "0.6",
                  std::string(kind).c_str(), escaped(command.source).c_str(), (timing.end - timing.start) * 1e6,
                  (timing.start - begin) * 1e6, onPath ? ", on the critical path" : "");
    if (!wait && double(kind.size()) * kLetter + 6 < width)
      svg +=
          format("<text x=\"%.2f\" y=\"%.0f\" text-anchor=\"middle\" fill=\"%s\" pointer-events=\"none\">%s</text>\n",
                 left + width / 2, top + kRowHeight / 2 + 4, colour.text, std::string(kind).c_str());
  }

  void drawLegend() {
    double at = kLeft, y = bottom() + 56;
    for (const Colour &colour : kColours) {
      svg += format("<rect x=\"%.1f\" y=\"%.0f\" width=\"14\" height=\"14\" fill=\"%s\"/>\n", at, y, colour.fill);
      svg += format("<text x=\"%.1f\" y=\"%.0f\" fill=\"#1d2430\">%s</text>\n", at + 20, y + 11,
                    std::string(colour.kind).c_str());
      at += 40 + double(colour.kind.size()) * kLetter;
    }
    if (!outlined())
      return;
    svg += format("<rect x=\"%.1f\" y=\"%.0f\" width=\"14\" height=\"14\" fill=\"#ffffff\" stroke=\"#1d2430\" "
                  "stroke-width=\"1.2\"/>\n<text x=\"%.1f\" y=\"%.0f\" fill=\"#1d2430\">on the critical path</text>\n",
                  at, y, at + 20, y + 11);
  }
};

} // namespace

bool printTimeline(const Step &step, const std::optional<Range> &layers, std::string &svg, Error &error) {
  constexpr int32_t kFew = 4;
  const perf::Program &program = step.ranks.front();
  int32_t last = -1;
  for (const perf::Command &command : program.commands)
    last = std::max(last, command.layer);
  Range shown{0, -1};
  if (layers)
    shown = *layers;
  else if (last >= kFew)
    shown = {0, 1};
  Timeline timeline{step, program, step.simulation.timings.front(), shown, 0, 0, {}};
  if ((layers && layers->last > last) || !timeline.findSpan())
    return error.set(ErrorCode::SimulateArgumentInvalid,
                     layers && last >= 0
                         ? "--layers goes beyond the last layer, " + std::to_string(last)
                         : "there is nothing to draw: the step takes no time, or no command says its layer");
  timeline.drawFrame();
  timeline.drawLayers();
  timeline.drawAxis();
  timeline.drawCommands();
  timeline.drawLegend();
  timeline.svg += "</svg>\n";
  svg = std::move(timeline.svg);
  return true;
}

} // namespace helix
