#include "cli/signals.h"

#include <signal.h>

#include <atomic>
#include <utility>

namespace baton::cli {
namespace {

std::function<void()> on_hangup;  // empty: SIGHUP is not caught

sigset_t EndSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  if (on_hangup) sigaddset(&set, SIGHUP);
  return set;
}

std::atomic<bool> stop_asked{false};
static_assert(std::atomic<bool>::is_always_lock_free);  // or a signal handler may not write it

}  // namespace

void BlockSignals() {
  const sigset_t set = EndSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);  // a limit on file sizes is an error of the write that meets it
}

void CatchHangups(std::function<void()> call) {
  on_hangup = std::move(call);
  signal(SIGHUP, SIG_DFL);  // nohup had it ignored, and what is ignored is not waited for
  const sigset_t set = EndSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

bool WaitForSignal(Duration timeout) {
  const sigset_t set = EndSignals();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(timeout);
  const timespec wait{.tv_sec = seconds.count(), .tv_nsec = (timeout - seconds).count()};
  const int signal = sigtimedwait(&set, nullptr, &wait);
  if (signal == SIGHUP) on_hangup();
  return signal > 0 && signal != SIGHUP;
}

void WaitForSignal() {
  const sigset_t set = EndSignals();
  while (true) {
    int signal = 0;
    if (sigwait(&set, &signal) != 0) continue;
    if (signal != SIGHUP) return;
    on_hangup();
  }
}

void CatchStopSignals() {
  struct sigaction action {};
  action.sa_handler = [](int) { stop_asked = true; };
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

bool StopAsked() { return stop_asked; }

}  // namespace baton::cli
