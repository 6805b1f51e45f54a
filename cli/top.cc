// `baton top`: a router's fleet, live in a terminal.

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "cli/admin_client.h"
#include "cli/command_line.h"
#include "cli/print_line.h"
#include "cli/signals.h"
#include "cli/top_view.h"
#include "common/status_macros.h"

namespace baton::cli {
namespace {

constexpr Duration kSilence = std::chrono::seconds(10);
constexpr size_t kPlainColumns = 120;

struct TopFlags {
  AdminClientFlags admin;
  double interval_s = 2;
  bool once = false;
  bool json = false;
};

absl::StatusOr<TopSample> Look(const HttpUrl& url) {
  BATON_ASSIGN_OR_RETURN(const std::string metrics, Fetch(url, "GET", "/metrics", "", kSilence));
  BATON_ASSIGN_OR_RETURN(const std::string workers, Fetch(url, "GET", "/v1/workers", "", kSilence));
  return ReadTopSample(SystemClock().Now(), metrics, workers);
}

struct Size {
  size_t columns = 80, rows = 24;
};

Size TerminalSize() {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0) {
    return {};
  }
  return {size.ws_col, size.ws_row};
}

// The terminal's other screen, without a cursor, and keys as they are typed. As it was afterwards.
class Screen {
 public:
  Screen() {
    if (tcgetattr(STDIN_FILENO, &before_) == 0) {
      termios raw = before_;
      raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
      raw.c_cc[VMIN] = 0;
      raw.c_cc[VTIME] = 0;
      keys_ = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
    }
    Write("\033[?1049h\033[?25l");
  }
  ~Screen() {
    Write("\033[?25h\033[?1049l");
    if (keys_) tcsetattr(STDIN_FILENO, TCSANOW, &before_);
  }
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  static void Show(const std::vector<std::string>& lines) {
    std::string frame = "\033[H";
    for (size_t i = 0; i < lines.size(); ++i) {
      if (i > 0) frame += "\r\n";
      frame += lines[i] + "\033[K";
    }
    Write(frame + "\033[J");
  }

  // Up to `wait`, or a key, a signal or a change of size. False: it is to end.
  bool Wait(Duration wait) const {
    const auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(wait).count();
    pollfd stdin_ready{.fd = keys_ ? STDIN_FILENO : -1, .events = POLLIN, .revents = 0};
    poll(&stdin_ready, 1, static_cast<int>(std::max<int64_t>(0, milliseconds)));
    if (StopAsked()) return false;
    if (stdin_ready.revents == 0) return true;
    char keys[64];
    const ssize_t got = read(STDIN_FILENO, keys, sizeof keys);
    if (got <= 0) return false;  // nobody is there any more
    return std::ranges::none_of(std::string_view(keys, static_cast<size_t>(got)),
                                [](char key) { return key == 'q' || key == 'Q'; });
  }

 private:
  static void Write(std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }

  termios before_{};
  bool keys_ = false;
};

// What is wrong is shown in the last line while the router is away.
absl::Status ShowLive(const TopFlags& flags, const HttpUrl& url) {
  BATON_ASSIGN_OR_RETURN(TopSample before, Look(url));
  CatchStopSignals();
  struct sigaction resized {};
  resized.sa_handler = [](int) {};  // ends the wait
  sigaction(SIGWINCH, &resized, nullptr);
  const Duration interval = FromSeconds(flags.interval_s);
  const Screen screen;
  TopView view = ViewOf(before, before);
  std::string trouble;
  TimePoint next = SystemClock().Now() + std::min<Duration>(interval, std::chrono::seconds(1));
  do {
    if (SystemClock().Now() >= next) {
      next = SystemClock().Now() + interval;
      absl::StatusOr<TopSample> now = Look(url);
      trouble = now.ok() ? "" : std::string(now.status().message());
      if (now.ok()) {
        view = ViewOf(before, *now);
        before = *std::move(now);
      }
    }
    const Size size = TerminalSize();
    std::vector<std::string> lines = TopLines(view, size.columns, size.rows - 1, /*colors=*/true);
    lines.resize(size.rows - 1);
    lines.push_back((trouble.empty() ? "q quits" : trouble).substr(0, size.columns));
    Screen::Show(lines);
  } while (screen.Wait(next - SystemClock().Now()));
  return absl::OkStatus();
}

absl::Status ShowOnce(const TopFlags& flags, const HttpUrl& url) {
  BATON_ASSIGN_OR_RETURN(const TopSample before, Look(url));
  std::this_thread::sleep_for(std::chrono::duration<double>(flags.interval_s));
  BATON_ASSIGN_OR_RETURN(const TopSample now, Look(url));
  const TopView view = ViewOf(before, now);
  if (flags.json) {
    PrintLine(TopJson(view));
    return absl::OkStatus();
  }
  const bool terminal = isatty(STDOUT_FILENO) == 1;
  const size_t columns = terminal ? TerminalSize().columns : kPlainColumns;
  for (const std::string& line : TopLines(view, columns, SIZE_MAX, /*colors=*/false)) {
    PrintLine(line);
  }
  return absl::OkStatus();
}

absl::Status Top(const TopFlags& flags) {
  BATON_ASSIGN_OR_RETURN(const HttpUrl url, AdminUrl(flags.admin));
  if (flags.once || flags.json) return ShowOnce(flags, url);
  if (isatty(STDOUT_FILENO) != 1) {
    return absl::InvalidArgumentError(
        "the output is no terminal: --once prints one frame, --json one object");
  }
  return ShowLive(flags, url);
}

}  // namespace

Action AddTop(CLI::App* app) {
  auto flags = std::make_shared<TopFlags>();
  AddAdminClientFlags(app, &flags->admin);
  app->add_option("--interval", flags->interval_s, "seconds between two looks")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  app->add_flag("--once", flags->once, "print one frame, of one interval, and end");
  app->add_flag("--json", flags->json, "the same as one JSON object");
  return [flags] { return Top(*flags); };
}

}  // namespace baton::cli
