#include "bench/load_client.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <optional>
#include <unordered_set>
#include <utility>

#include "common/status_macros.h"

namespace baton::bench {
namespace {

namespace net = boost::asio;
using boost::system::error_code;
using net::ip::tcp;

constexpr size_t kReadBytes = 256 << 10;
constexpr size_t kTlsReadBytes = 16 << 10;                   // a record
constexpr Duration kSweep = std::chrono::milliseconds(250);  // how late a time-out may be noticed

struct Request {
  std::string bytes;
  LoadAnswer answer;
  std::function<void(LoadAnswer)> done;
  std::function<void()> on_first;
};

class Connection;

void PrepareStream(const LoadClientOptions& options, net::ssl::stream<tcp::socket&>* tls) {
  SSL_set_tlsext_host_name(tls->native_handle(), options.url.host.c_str());
  if (options.insecure_tls) return;
  tls->set_verify_callback(net::ssl::host_name_verification(options.url.host));
}

// What the connections share.
struct Pool {
  explicit Pool(const LoadClientOptions& client_options) : options(client_options) {}

  const LoadClientOptions options;
  net::io_context io{1};
  tcp::endpoint endpoint;
  std::optional<net::ssl::context> tls;                     // of an https address
  std::string read_buffer = std::string(kReadBytes, '\0');  // of whichever connection reads now
  std::vector<std::shared_ptr<Connection>> idle;
  std::unordered_set<Connection*> busy;
};

// One connection and the request on it. Lifetime: its outstanding operations, and the pool while it
// is idle.
class Connection final : public std::enable_shared_from_this<Connection> {
 public:
  explicit Connection(Pool* pool) : pool_(*pool), socket_(pool->io) {}

  void Start(std::unique_ptr<Request> request);
  void TimeOut(TimePoint now) {
    if (now - request_->answer.sent > pool_.options.timeout) End(LoadEnd::kTimeout, "");
  }
  void Drop() {
    request_.reset();
    Shut();
  }

 private:
  void Connect();
  void Handshake();
  void Write();
  void OnWritten(error_code failed);
  void ReadTls();
  void WaitForBytes();
  void ReadAll();
  // False when the request is over.
  bool Take(std::string_view bytes, TimePoint now);
  void OnClosed();
  void OnComplete();
  void End(LoadEnd end, std::string error);
  void Shut() {
    error_code ignored;
    socket_.close(ignored);
  }

  Pool& pool_;
  tcp::socket socket_;
  std::optional<net::ssl::stream<tcp::socket&>> tls_;  // over it
  std::string tls_buffer_;
  std::unique_ptr<Request> request_;
  std::unique_ptr<AnswerReader> reader_;
  std::string rest_;        // read, and not consumed yet
  bool used_ = false;       // it has carried a request before
  bool any_bytes_ = false;  // of this answer
  TimePoint last_piece_;
};

void Connection::Start(std::unique_ptr<Request> request) {
  request_ = std::move(request);
  reader_ = std::make_unique<AnswerReader>();
  rest_.clear();
  any_bytes_ = false;
  pool_.busy.insert(this);
  if (socket_.is_open()) {
    Write();
  } else {
    Connect();
  }
}

void Connection::Connect() {
  tls_.reset();
  error_code error;
  socket_.open(pool_.endpoint.protocol(), error);
  if (error) return End(LoadEnd::kConnect, error.message());
  socket_.async_connect(pool_.endpoint, [self = shared_from_this()](error_code failed) {
    if (self->request_ == nullptr) return;
    if (failed) return self->End(LoadEnd::kConnect, failed.message());
    error_code ignored;
    self->socket_.set_option(tcp::no_delay(true), ignored);
    self->socket_.non_blocking(true, ignored);
    self->pool_.tls ? self->Handshake() : self->Write();
  });
}

void Connection::Handshake() {
  tls_.emplace(socket_, *pool_.tls);
  PrepareStream(pool_.options, &*tls_);
  tls_buffer_.resize(kTlsReadBytes);
  tls_->async_handshake(net::ssl::stream_base::client, [self = shared_from_this()](error_code e) {
    if (self->request_ == nullptr) return;
    if (e) return self->End(LoadEnd::kConnect, fmt::format("TLS: {}", e.message()));
    self->Write();
  });
}

void Connection::Write() {
  const auto written = [self = shared_from_this()](error_code failed, size_t) {
    self->OnWritten(failed);
  };
  if (tls_) {
    net::async_write(*tls_, net::buffer(request_->bytes), written);
  } else {
    net::async_write(socket_, net::buffer(request_->bytes), written);
  }
}

void Connection::OnWritten(error_code failed) {
  if (request_ == nullptr) return;
  if (failed) return OnClosed();
  tls_ ? ReadTls() : WaitForBytes();
}

void Connection::ReadTls() {
  tls_->async_read_some(net::buffer(tls_buffer_),
                        [self = shared_from_this()](error_code failed, size_t bytes) {
                          if (self->request_ == nullptr) return;
                          if (failed) return self->OnClosed();
                          self->any_bytes_ = true;
                          if (self->Take({self->tls_buffer_.data(), bytes}, SystemClock().Now()))
                            self->ReadTls();
                        });
}

void Connection::WaitForBytes() {
  socket_.async_wait(tcp::socket::wait_read, [self = shared_from_this()](error_code failed) {
    if (self->request_ == nullptr) return;
    if (failed) return self->OnClosed();
    self->ReadAll();
  });
}

void Connection::ReadAll() {
  while (true) {
    error_code error;
    const size_t bytes = socket_.read_some(net::buffer(pool_.read_buffer), error);
    if (error == net::error::would_block) return WaitForBytes();
    if (error) return OnClosed();
    any_bytes_ = true;
    if (!Take({pool_.read_buffer.data(), bytes}, SystemClock().Now())) return;
    if (bytes < pool_.read_buffer.size()) return WaitForBytes();
  }
}

bool Connection::Take(std::string_view bytes, TimePoint now) {
  if (!rest_.empty()) bytes = rest_.append(bytes);
  const auto progress = reader_->Push(bytes);
  if (!progress.ok()) {
    End(LoadEnd::kUnsound, std::string(progress.status().message()));
    return false;
  }
  rest_ = std::string(bytes.substr(progress->consumed));
  LoadAnswer& answer = request_->answer;
  for (int32_t i = 0; i < progress->pieces; ++i) {
    if (answer.pieces++ == 0) {
      answer.first_piece = now;
      if (request_->on_first) request_->on_first();
      if (request_ == nullptr) return false;
    } else if (pool_.options.keep_gaps) {
      answer.gaps_s.push_back(static_cast<float>(Seconds(now - last_piece_)));
    }
    last_piece_ = now;
  }
  if (!reader_->complete()) return true;
  OnComplete();
  return false;
}

void Connection::OnClosed() {
  if (used_ && !any_bytes_) {  // it was closed while it was idle: the request was not seen
    used_ = false;
    Shut();
    return Connect();
  }
  if (!any_bytes_) return End(LoadEnd::kBroken, "the connection closed before the answer");
  const absl::Status closed = reader_->Close();
  if (!closed.ok()) return End(LoadEnd::kBroken, std::string(closed.message()));
  OnComplete();
}

void Connection::OnComplete() {
  const AnswerFacts& facts = reader_->facts();
  if (facts.status != 200) {
    End(LoadEnd::kStatus, facts.error);
  } else if (!facts.error.empty()) {
    End(LoadEnd::kError, facts.error);
  } else if (!facts.finished) {
    End(LoadEnd::kUnsound, "the answer ended without a finish reason");
  } else {
    End(LoadEnd::kOk, "");
  }
}

void Connection::End(LoadEnd end, std::string error) {
  const auto self = shared_from_this();
  const std::unique_ptr<Request> request = std::move(request_);
  pool_.busy.erase(this);
  LoadAnswer& answer = request->answer;
  answer.end = end;
  answer.facts = reader_->facts();
  answer.facts.error = std::move(error);
  answer.body = reader_->body();
  answer.ended = SystemClock().Now();
  if (answer.pieces == 0) answer.first_piece = answer.ended;
  if (reader_->keep_alive() && end != LoadEnd::kTimeout && rest_.empty()) {
    used_ = true;
    pool_.idle.push_back(self);
  } else {
    Shut();
  }
  request->done(std::move(answer));
}

class AsioLoadClient final : public LoadClient {
 public:
  explicit AsioLoadClient(const LoadClientOptions& options) : pool_(options), sweep_(pool_.io) {}
  ~AsioLoadClient() override {
    const std::vector<Connection*> busy(pool_.busy.begin(), pool_.busy.end());
    for (Connection* connection : busy) connection->Drop();
    pool_.idle.clear();
  }

  absl::Status PrepareTls() {
    if (!pool_.options.url.tls) return absl::OkStatus();
    const TlsFiles& files = pool_.options.tls;
    BATON_RETURN_IF_ERROR(CheckTlsFiles({files.certificate, files.key, ""}, "-"));
    net::ssl::context& context = pool_.tls.emplace(net::ssl::context::tls_client);
    SSL_CTX_set_min_proto_version(context.native_handle(), TLS1_2_VERSION);
    const bool checks = !pool_.options.insecure_tls;
    context.set_verify_mode(checks ? net::ssl::verify_peer : net::ssl::verify_none);
    error_code error;
    if (checks && files.ca.empty()) context.set_default_verify_paths(error);
    if (checks && !files.ca.empty()) context.load_verify_file(files.ca, error);
    if (error) {
      return absl::InvalidArgumentError(
          fmt::format("the CA {} cannot be used: {}", files.ca, error.message()));
    }
    if (!files.on()) return absl::OkStatus();
    context.use_certificate_chain_file(files.certificate, error);
    if (!error) context.use_private_key_file(files.key, net::ssl::context::pem, error);
    if (!error) return absl::OkStatus();
    return absl::InvalidArgumentError(
        fmt::format("the certificate {} cannot be used: {}", files.certificate, error.message()));
  }

  // So that a certificate that is not trusted is one clear error.
  absl::Status TryTls(tcp::socket& socket) {
    net::ssl::stream<tcp::socket&> tls(socket, *pool_.tls);
    PrepareStream(pool_.options, &tls);
    error_code error;
    if (!tls.handshake(net::ssl::stream_base::client, error)) return absl::OkStatus();
    const LoadUrl& url = pool_.options.url;
    return absl::UnavailableError(
        fmt::format("TLS with {}:{} failed: {}", url.host, url.port, error.message()));
  }

  // Of the addresses that the host has, takes the first that somebody listens on.
  absl::Status Resolve() {
    const LoadUrl& url = pool_.options.url;
    error_code error;
    tcp::resolver resolver(pool_.io);
    for (const auto& found : resolver.resolve(url.host, url.port, error)) {
      pool_.endpoint = found.endpoint();
      tcp::socket socket(pool_.io);
      if (socket.connect(pool_.endpoint, error)) continue;
      return pool_.tls ? TryTls(socket) : absl::OkStatus();
    }
    return absl::UnavailableError(
        fmt::format("cannot connect to {}:{}: {}", url.host, url.port, error.message()));
  }

  void Send(std::string request, TimePoint due, std::function<void(LoadAnswer)> done,
            std::function<void()> on_first) override {
    auto next = std::make_unique<Request>(
        Request{std::move(request), {}, std::move(done), std::move(on_first)});
    next->answer.due = due;
    next->answer.sent = SystemClock().Now();
    std::shared_ptr<Connection> connection;
    if (pool_.idle.empty()) {
      connection = std::make_shared<Connection>(&pool_);
    } else {
      connection = std::move(pool_.idle.back());
      pool_.idle.pop_back();
    }
    connection->Start(std::move(next));
    if (!std::exchange(sweeping_, true)) Sweep();
  }

  void Get(std::string_view path, std::function<void(absl::StatusOr<std::string>)> done) override {
    const LoadUrl& url = pool_.options.url;
    Send(
        fmt::format("GET {}{} HTTP/1.1\r\nHost: {}:{}\r\n{}\r\n", url.path, path, url.host,
                    url.port, pool_.options.headers),
        SystemClock().Now(),
        [path = std::string(path), done = std::move(done)](LoadAnswer answer) {
          if (answer.facts.status == 200) return done(std::move(answer.body));
          done(absl::UnavailableError(fmt::format("GET {}: {} (HTTP {})", path,
                                                  LoadEndName(answer.end), answer.facts.status)));
        },
        nullptr);
  }

  void At(TimePoint when, std::function<void()> call) override {
    auto timer = std::make_shared<net::steady_timer>(pool_.io, when);
    timer->async_wait([timer, call = std::move(call)](error_code failed) {
      if (!failed) call();
    });
  }

  void Run() override {
    pool_.io.restart();
    TimePoint last = SystemClock().Now();
    while (!pool_.io.stopped()) {  // which it is when nothing is left, too
      if (pool_.io.poll() > 0) {
        last = SystemClock().Now();
      } else if (SystemClock().Now() - last > pool_.options.spin) {
        pool_.io.run_one();
        last = SystemClock().Now();
      }
    }
  }
  void Stop() override { pool_.io.stop(); }
  int64_t open() const override { return static_cast<int64_t>(pool_.busy.size()); }

 private:
  // Looks for requests that take too long, for as long as there are requests.
  void Sweep() {
    sweep_.expires_after(kSweep);
    sweep_.async_wait([this](error_code failed) {
      if (failed) return;
      const TimePoint now = SystemClock().Now();
      const std::vector<Connection*> busy(pool_.busy.begin(), pool_.busy.end());
      for (Connection* connection : busy) {
        if (pool_.busy.contains(connection)) connection->TimeOut(now);
      }
      sweeping_ = !pool_.busy.empty();
      if (sweeping_) Sweep();
    });
  }

  Pool pool_;
  net::steady_timer sweep_;
  bool sweeping_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<LoadClient>> LoadClient::Create(const LoadClientOptions& options) {
  auto client = std::make_unique<AsioLoadClient>(options);
  BATON_RETURN_IF_ERROR(client->PrepareTls());
  BATON_RETURN_IF_ERROR(client->Resolve());
  return client;
}

}  // namespace baton::bench
