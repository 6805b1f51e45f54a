// The transport between services of one process: a hub of mailboxes. A peer's slab is "mapped" by
// sharing it, so it lives until its last reader lets go.

#include <fmt/format.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <variant>

#include "kv_transfer/byte_codec.h"
#include "kv_transfer/transport.h"

namespace baton::kv_transfer {
namespace {

constexpr size_t kSlabAlignment = 4'096;

class InprocSlab final : public PeerSlab {
 public:
  explicit InprocSlab(size_t bytes)
      : bytes_(bytes),
        data_(static_cast<std::byte*>(operator new (bytes, std::align_val_t{kSlabAlignment},
                                                    std::nothrow))) {
    if (data_ != nullptr) std::memset(data_.get(), 0, bytes);
  }
  bool allocated() const { return data_ != nullptr; }
  std::span<std::byte> writable() { return {data_.get(), bytes_}; }
  std::span<const std::byte> bytes() const override { return {data_.get(), bytes_}; }

 private:
  struct Free {
    void operator()(std::byte* data) const {
      operator delete (data, std::align_val_t{kSlabAlignment});
    }
  };
  size_t bytes_;
  std::unique_ptr<std::byte, Free> data_;
};

struct Letter {
  uint64_t sender = 0;
  std::string message;  // or the header of `payload`
  bool is_data = false;
  std::string payload;
};
struct SenderGone {
  uint64_t sender = 0;
};
using Mail = std::variant<Letter, SenderGone>;

// What others hold of one transport. Closed when the transport goes; then nothing is taken in.
class Mailbox {
 public:
  explicit Mailbox(std::shared_ptr<const PeerSlab> slab) : slab_(std::move(slab)) {}

  bool Put(Mail mail) {
    {
      const std::lock_guard lock(mutex_);
      if (closed_) return false;
      mail_.push_back(std::move(mail));
    }
    changed_.notify_one();
    return true;
  }
  std::deque<Mail> TakeAll() {
    const std::lock_guard lock(mutex_);
    return std::exchange(mail_, {});
  }
  void Wait(Duration longest) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, longest, [this] { return woken_ || !mail_.empty(); });
    woken_ = false;
  }
  void Wake() {
    {
      const std::lock_guard lock(mutex_);
      woken_ = true;
    }
    changed_.notify_one();
  }
  void Close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  std::shared_ptr<const PeerSlab> slab() const { return slab_; }

 private:
  const std::shared_ptr<const PeerSlab> slab_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Mail> mail_;
  bool woken_ = false;
  bool closed_ = false;
};

// The mailboxes of this process, by incarnation.
class Hub {
 public:
  static Hub& OfThisProcess() {
    static Hub hub;
    return hub;
  }
  void Add(uint64_t incarnation, std::shared_ptr<Mailbox> mailbox) {
    const std::lock_guard lock(mutex_);
    mailboxes_[incarnation] = std::move(mailbox);
  }
  std::shared_ptr<Mailbox> Find(uint64_t incarnation) const {
    const std::lock_guard lock(mutex_);
    const auto found = mailboxes_.find(incarnation);
    return found == mailboxes_.end() ? nullptr : found->second;
  }
  // Tells everybody who is left, as a closed connection would.
  void Remove(uint64_t incarnation) {
    const std::lock_guard lock(mutex_);
    mailboxes_.erase(incarnation);
    for (auto& [other, mailbox] : mailboxes_) mailbox->Put(SenderGone{incarnation});
  }

 private:
  mutable std::mutex mutex_;
  std::unordered_map<uint64_t, std::shared_ptr<Mailbox>> mailboxes_;
};

absl::Status Gone(uint64_t incarnation) {
  return absl::UnavailableError(
      fmt::format("no service {:016x} in this process: it has ended, or never was", incarnation));
}

class InprocTransport final : public Transport {
 public:
  InprocTransport(uint64_t incarnation, std::shared_ptr<InprocSlab> slab)
      : incarnation_(incarnation),
        slab_(std::move(slab)),
        mailbox_(std::make_shared<Mailbox>(slab_)) {
    Hub::OfThisProcess().Add(incarnation_, mailbox_);
  }
  ~InprocTransport() override {
    mailbox_->Close();
    Hub::OfThisProcess().Remove(incarnation_);
  }

  std::span<std::byte> slab() override { return slab_->writable(); }
  void Describe(PeerAddress& address) const override { address.family = "inproc"; }
  std::string mapped_name() const override { return "inproc"; }
  std::string pulled_name(DataWay) const override { return "inproc pull"; }

  absl::StatusOr<PeerId> Connect(const PeerAddress& address) override {
    std::shared_ptr<Mailbox> mailbox = Hub::OfThisProcess().Find(address.incarnation);
    if (mailbox == nullptr) return Gone(address.incarnation);
    const PeerId id = next_peer_++;
    peers_[id] = {address.incarnation, std::move(mailbox)};
    return id;
  }
  void Send(PeerId peer, std::string message) override {
    Deliver(peer, {.sender = incarnation_, .message = std::move(message), .payload = {}});
  }
  void SendData(PeerId peer, DataWay, std::string header, std::span<const std::byte> payload,
                uint64_t tag) override {
    Deliver(peer, {.sender = incarnation_,
                   .message = std::move(header),
                   .is_data = true,
                   .payload = std::string(AsText(payload))});
    sent_.push_back(tag);
  }
  absl::StatusOr<std::shared_ptr<const PeerSlab>> MapSlab(const PeerAddress& address) override {
    const std::shared_ptr<Mailbox> mailbox = Hub::OfThisProcess().Find(address.incarnation);
    if (mailbox == nullptr) return Gone(address.incarnation);
    return mailbox->slab();
  }

  bool Progress(TransportEvents& events) override {
    const std::deque<Mail> mail = mailbox_->TakeAll();
    const std::deque<uint64_t> sent = std::exchange(sent_, {});
    for (const Mail& item : mail) {
      if (const auto* gone = std::get_if<SenderGone>(&item)) {
        ReportGone(gone->sender, events);
        continue;
      }
      const Letter& letter = std::get<Letter>(item);
      if (!letter.is_data) {
        events.OnMessage(AsBytes(letter.message));
      } else if (events.WantsData(AsBytes(letter.message), letter.payload.size())) {
        events.OnData(AsBytes(letter.message), AsBytes(letter.payload));
      }
    }
    for (const uint64_t tag : sent) events.OnSent(tag);
    return !mail.empty() || !sent.empty();
  }
  void Wait(Duration longest) override {
    if (sent_.empty()) mailbox_->Wait(longest);
  }
  void Wake() override { mailbox_->Wake(); }

 private:
  struct Peer {
    uint64_t incarnation = 0;
    std::shared_ptr<Mailbox> mailbox;
  };

  void Deliver(PeerId peer, Letter letter) {
    const auto found = peers_.find(peer);
    if (found == peers_.end()) return;
    // A closed mailbox has, or will have, its SenderGone in ours.
    found->second.mailbox->Put(std::move(letter));
  }
  void ReportGone(uint64_t incarnation, TransportEvents& events) {
    std::deque<PeerId> down;
    for (const auto& [id, peer] : peers_) {
      if (peer.incarnation == incarnation) down.push_back(id);
    }
    for (const PeerId id : down) {
      peers_.erase(id);
      events.OnPeerDown(id, Gone(incarnation));
    }
  }

  const uint64_t incarnation_;
  const std::shared_ptr<InprocSlab> slab_;
  const std::shared_ptr<Mailbox> mailbox_;
  std::unordered_map<PeerId, Peer> peers_;
  PeerId next_peer_ = 1;
  std::deque<uint64_t> sent_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Transport>> CreateInprocTransport(const TransportOptions& options) {
  auto slab = std::make_shared<InprocSlab>(options.slab_bytes);
  if (!slab->allocated()) {
    return absl::ResourceExhaustedError(
        fmt::format("cannot allocate a KV slab of {} bytes", options.slab_bytes));
  }
  return std::make_unique<InprocTransport>(options.incarnation, std::move(slab));
}

}  // namespace baton::kv_transfer
