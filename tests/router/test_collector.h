#pragma once

// A trace collector as far as a test needs one: takes POSTs, keeps them, answers what it is told
// to.

#include <deque>
#include <memory>
#include <string>
#include <vector>

namespace baton::router {

class TestCollector {
 public:
  struct Request {
    std::string method, target, content_type, body;
  };

  TestCollector();
  // Https: PEM files, of "localhost".
  TestCollector(const std::string& certificate, const std::string& key);
  ~TestCollector();

  std::string url() const;
  // The next answers; 200 when there are none left.
  void AnswerWith(std::deque<unsigned> statuses);
  // All so far; waits until there are `count`, or gives fewer after a while.
  std::vector<Request> Await(size_t count) const;
  std::vector<Request> Received() const { return Await(0); }

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

}  // namespace baton::router
