#include "bench/load_run.h"

#include <algorithm>
#include <utility>

namespace baton::bench {
namespace {

bool Stopped(const LoadSource& source) { return source.stop && source.stop(); }

class OpenLoad {
 public:
  OpenLoad(LoadClient* client, const std::vector<double>& due_s, const LoadSource& source)
      : client_(*client), due_s_(due_s), source_(source), start_(SystemClock().Now()) {}

  // Sends what is due, and comes back when the next is.
  void SendDue() {
    const TimePoint now = SystemClock().Now();
    while (next_ < due_s_.size() && Due(next_) <= now) {
      if (Stopped(source_)) return;
      const auto number = static_cast<int64_t>(next_++);
      client_.Send(
          source_.request(number), Due(static_cast<size_t>(number)),
          [this, number](LoadAnswer answer) { source_.on_answer(number, std::move(answer)); });
    }
    if (next_ == due_s_.size()) return;
    // Looks at `stop` at least every 100 ms.
    client_.At(std::min(Due(next_), now + std::chrono::milliseconds(100)), [this] {
      if (!Stopped(source_)) SendDue();
    });
  }

 private:
  TimePoint Due(size_t number) const { return start_ + FromSeconds(due_s_[number]); }

  LoadClient& client_;
  const std::vector<double>& due_s_;
  const LoadSource& source_;
  const TimePoint start_;
  size_t next_ = 0;
};

class ClosedLoad {
 public:
  ClosedLoad(LoadClient* client, int64_t count, const LoadSource& source)
      : client_(*client), count_(count), source_(source) {}

  void SendNext() {
    if (next_ >= count_ || Stopped(source_)) return;
    const int64_t number = next_++;
    client_.Send(source_.request(number), SystemClock().Now(), [this, number](LoadAnswer answer) {
      source_.on_answer(number, std::move(answer));
      SendNext();
    });
  }

 private:
  LoadClient& client_;
  const int64_t count_;
  const LoadSource& source_;
  int64_t next_ = 0;
};

}  // namespace

void RunOpenLoad(LoadClient* client, const std::vector<double>& due_s, const LoadSource& source) {
  OpenLoad load(client, due_s, source);
  load.SendDue();
  client->Run();
}

void RunClosedLoad(LoadClient* client, int64_t count, int64_t concurrency,
                   const LoadSource& source) {
  ClosedLoad load(client, count, source);
  for (int64_t i = 0; i < std::min(count, concurrency); ++i) load.SendNext();
  client->Run();
}

}  // namespace baton::bench
