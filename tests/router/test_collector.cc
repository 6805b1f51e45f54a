#include "tests/router/test_collector.h"

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

namespace baton::router {

namespace http = boost::beast::http;
using boost::asio::ip::tcp;

struct TestCollector::State {
  State() : acceptor(io, {boost::asio::ip::make_address("127.0.0.1"), 0}) {}

  void Run() {
    while (true) {
      tcp::socket socket = acceptor.accept();
      if (stopping) return;
      if (!tls) {
        Take(socket);
        continue;
      }
      boost::asio::ssl::stream<tcp::socket> encrypted(std::move(socket), *tls);
      boost::system::error_code error;
      encrypted.handshake(boost::asio::ssl::stream_base::server, error);
      if (!error) Take(encrypted);
    }
  }

  template <typename Stream>
  void Take(Stream& stream) {
    boost::beast::flat_buffer buffer;
    http::request<http::string_body> request;
    boost::system::error_code error;
    http::read(stream, buffer, request, error);
    if (error) return;
    http::response<http::string_body> response;
    {
      const std::lock_guard lock(mutex);
      requests.push_back({std::string(request.method_string()), std::string(request.target()),
                          std::string(request[http::field::content_type]), request.body()});
      response.result(statuses.empty() ? 200 : statuses.front());
      if (!statuses.empty()) statuses.pop_front();
    }
    response.body() = "{}";
    response.prepare_payload();
    http::write(stream, response, error);
    changed.notify_all();
  }

  boost::asio::io_context io;
  tcp::acceptor acceptor;
  std::optional<boost::asio::ssl::context> tls;
  std::atomic<bool> stopping{false};
  std::mutex mutex;  // guards the next two
  std::vector<Request> requests;
  std::deque<unsigned> statuses;
  std::condition_variable changed;
  std::thread thread;
};

TestCollector::TestCollector() : state_(std::make_unique<State>()) {
  state_->thread = std::thread([this] { state_->Run(); });
}

TestCollector::TestCollector(const std::string& certificate, const std::string& key)
    : state_(std::make_unique<State>()) {
  state_->tls.emplace(boost::asio::ssl::context::tls_server);
  state_->tls->use_certificate_chain_file(certificate);
  state_->tls->use_private_key_file(key, boost::asio::ssl::context::pem);
  state_->thread = std::thread([this] { state_->Run(); });
}

TestCollector::~TestCollector() {
  state_->stopping = true;
  tcp::socket waker(state_->io);
  boost::system::error_code ignored;
  waker.connect(state_->acceptor.local_endpoint(), ignored);
  state_->thread.join();
}

std::string TestCollector::url() const {
  return (state_->tls ? "https://localhost:" : "http://127.0.0.1:") +
         std::to_string(state_->acceptor.local_endpoint().port());
}

void TestCollector::AnswerWith(std::deque<unsigned> statuses) {
  const std::lock_guard lock(state_->mutex);
  state_->statuses = std::move(statuses);
}

std::vector<TestCollector::Request> TestCollector::Await(size_t count) const {
  std::unique_lock lock(state_->mutex);
  state_->changed.wait_for(lock, std::chrono::seconds(20),
                           [&] { return state_->requests.size() >= count; });
  return state_->requests;
}

}  // namespace baton::router
