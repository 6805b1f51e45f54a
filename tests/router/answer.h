#pragma once

// A client: collects what a ResponseSink is told, and notices calls that it must not get.

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "router/request.h"

namespace baton::router {

struct Collected {
  std::vector<TokenId> tokens;
  std::string text;
  std::optional<Finish> finish;
  std::optional<absl::Status> error;
  int endings = 0;
  bool out_of_order = false;  // an index that does not continue, output after an ending, or two
                              // calls at the same time

  std::string Error() const { return error ? error->ToString() : "no error"; }
};

class Answer {
 public:
  // The sink may outlive this object. `on_delta` is called after each delta, without a lock.
  ResponseSink Sink(std::function<void()> on_delta = nullptr) {
    const auto state = state_;
    ResponseSink sink;
    sink.on_delta = [state, on_delta](Delta delta) {
      state->Change([&delta](Collected& all) {
        all.out_of_order |= delta.index != static_cast<int32_t>(all.tokens.size());
        for (const TokenDetail& token : delta.tokens) all.tokens.push_back(token.token);
        all.text += delta.text;
      });
      if (on_delta != nullptr) on_delta();
    };
    sink.on_finish = [state](Finish finish) {
      state->Change([&finish](Collected& all) {
        all.finish = std::move(finish);
        ++all.endings;
      });
    };
    sink.on_error = [state](absl::Status status) {
      state->Change([&status](Collected& all) {
        all.error = std::move(status);
        ++all.endings;
      });
    };
    return sink;
  }

  Collected Now() const {
    const std::lock_guard lock(state_->mutex);
    return state_->all;
  }
  // Waits (generously) until there are `tokens` tokens or an ending.
  Collected AwaitTokens(size_t tokens) const {
    return state_->Await(
        [tokens](const Collected& all) { return all.tokens.size() >= tokens || all.endings > 0; });
  }
  Collected AwaitEnd() const {
    return state_->Await([](const Collected& all) { return all.endings > 0; });
  }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    Collected all;
    std::atomic<int> callers{0};

    template <typename Do>
    void Change(Do change) {
      const bool alone = callers.fetch_add(1) == 0;
      {
        const std::lock_guard lock(mutex);
        all.out_of_order |= !alone || all.endings > 0;
        change(all);
      }
      changed.notify_all();
      --callers;
    }
    template <typename Done>
    Collected Await(Done done) {
      std::unique_lock lock(mutex);
      changed.wait_for(lock, std::chrono::seconds(20), [&] { return done(all); });
      return all;
    }
  };

  std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace baton::router
