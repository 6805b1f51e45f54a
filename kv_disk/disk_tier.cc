#include "kv_disk/disk_tier.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <utility>

#include "common/logging.h"
#include "common/status_macros.h"

namespace baton::kv_disk {
namespace {

constexpr int64_t kMostBuffers = 1024;
// A disk that has not answered for so long is not asked for more.
constexpr Duration kStall = std::chrono::seconds(1);
// How long a tier that ends goes on writing.
constexpr Duration kCloseWait = std::chrono::seconds(5);
// A shorter read tells more about waking a thread up than about the disk.
constexpr int64_t kLeastMeasuredBytes = int64_t{1} << 20;
constexpr int64_t kMeasureBytes = int64_t{16} << 20;
constexpr Duration kMeasureInterval = std::chrono::seconds(10);
constexpr double kRateMemory = 0.75;  // weight of what was measured before the last read

std::string PathOf(const DiskTierOptions& options) {
  std::string name = options.name;
  for (char& letter : name) {
    const bool kept = std::isalnum(static_cast<unsigned char>(letter)) != 0 || letter == '.' ||
                      letter == '-' || letter == '_';
    if (!kept) letter = '_';
  }
  return fmt::format("{}/{}.kvcache", options.directory, name);
}

std::optional<BlockHash> Before(std::span<const BlockHash> chain, size_t index) {
  if (index == 0) return std::nullopt;
  return chain[index - 1];
}

// The place of each slot's block in its chain, as far as the blocks before it are here: from 1, by
// slot.
std::vector<int32_t> PlacesOf(const std::vector<BlockFile::Record>& found, int32_t slots) {
  std::vector<int32_t> previous(static_cast<size_t>(slots), SlotIndex::kNone);
  for (const BlockFile::Record& record : found) {
    previous[static_cast<size_t>(record.slot)] = record.previous;
  }
  std::vector<int32_t> places(static_cast<size_t>(slots), 0);
  std::vector<int32_t> path;
  for (const BlockFile::Record& record : found) {
    path.clear();
    int32_t slot = record.slot;
    // Damaged records may form a ring: nothing is further from its beginning than there are slots.
    while (slot >= 0 && slot < slots && places[static_cast<size_t>(slot)] == 0 &&
           static_cast<int32_t>(path.size()) < slots) {
      path.push_back(slot);
      slot = previous[static_cast<size_t>(slot)];
    }
    int32_t place = slot >= 0 && slot < slots ? places[static_cast<size_t>(slot)] : 0;
    for (auto one = path.rbegin(); one != path.rend(); ++one) {
      places[static_cast<size_t>(*one)] = ++place;
    }
  }
  return places;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DiskTier>> DiskTier::Create(const DiskTierOptions& options,
                                                           std::function<void()> on_read) {
  const std::string path = PathOf(options);
  BATON_ASSIGN_OR_RETURN(std::unique_ptr<BlockFile> file,
                         BlockFile::Open({.path = path,
                                          .bytes = options.bytes,
                                          .block_bytes = options.block_bytes,
                                          .identity = options.identity}));
  std::unique_ptr<DiskTier> tier(new DiskTier(std::move(file), options, std::move(on_read)));
  tier->Load();
  LogInfo(fmt::format("KV disk cache {}: {} of {} blocks of {} bytes are there", path,
                      tier->status_.blocks, tier->status_.blocks_total, options.block_bytes));
  tier->thread_ = std::thread([&tier = *tier] { tier.Run(); });
  return tier;
}

DiskTier::DiskTier(std::unique_ptr<BlockFile> file, const DiskTierOptions& options,
                   std::function<void()> on_read)
    : block_bytes_(options.block_bytes),
      buffer_count_(static_cast<int32_t>(
          std::clamp<int64_t>(options.write_buffer_bytes / options.block_bytes, 1, kMostBuffers))),
      on_read_(std::move(on_read)),
      journal_(options.journal),
      file_(std::move(file)),
      buffers_(new std::byte[static_cast<size_t>(buffer_count_ * block_bytes_)]),
      staging_(new std::byte[static_cast<size_t>(block_bytes_)]),
      index_(file_->slots()),
      keys_(static_cast<size_t>(file_->slots())) {
  if (journal_ != nullptr) journal_->SetBlocks(CacheTier::kDisk, file_->slots());
  for (int32_t buffer = 0; buffer < buffer_count_; ++buffer) free_buffers_.push_back(buffer);
}

DiskTier::~DiskTier() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    close_deadline_ = SystemClock().Now() + kCloseWait;
    reads_.clear();
    if (reading_ != nullptr) {
      const std::lock_guard read_lock(reading_->mutex);
      reading_->cancelled = true;
    }
  }
  changed_.notify_one();
  thread_.join();
  if (journal_ != nullptr) journal_->LeaveAll(CacheTier::kDisk);
}

void DiskTier::Load() {
  std::vector<BlockFile::Record> found = file_->Found();
  // The index hands out its lowest free slot, the file says which ones are used: all are taken, and
  // those that hold nothing are given back.
  std::vector<bool> used(static_cast<size_t>(index_.slots()));
  const std::vector<int32_t> places = PlacesOf(found, index_.slots());
  while (index_.Take()) {
  }
  for (const BlockFile::Record& record : found) {
    // A crash may have left an older record of a block that was written again elsewhere.
    if (const auto older = index_.Find(record.hash)) {
      index_.Forget(*older);
      ForgottenLocked(*older);
      used[static_cast<size_t>(*older)] = true;
    }
    EnterLocked(record, places[static_cast<size_t>(record.slot)]);
    used[static_cast<size_t>(record.slot)] = true;
  }
  for (int32_t slot = index_.slots() - 1; slot >= 0; --slot) {
    if (!used[static_cast<size_t>(slot)]) index_.Forget(slot);
  }
  status_.blocks = index_.size();
  status_.blocks_total = index_.slots();
}

std::span<std::byte> DiskTier::Buffer(int32_t index) const {
  return {buffers_.get() + index * block_bytes_, static_cast<size_t>(block_bytes_)};
}

// ---- the device thread ----

int32_t DiskTier::CountMatch(std::span<const BlockHash> chain, size_t first) {
  const std::lock_guard lock(mutex_);
  size_t end = first;
  if (status_.on && AnswersLocked()) {
    while (end < chain.size() && index_.Find(chain[end])) ++end;
  }
  status_.blocks_hit += static_cast<int64_t>(end - first);
  status_.blocks_missed += static_cast<int64_t>(chain.size() - end);
  return static_cast<int32_t>(end - first);
}

bool DiskTier::Save(std::span<const BlockHash> chain, size_t index,
                    std::span<const std::byte> block) {
  BATON_CHECK(static_cast<int64_t>(block.size()) == block_bytes_, "one whole block is saved");
  const BlockHash& hash = chain[index];
  Write write{
      .hash = hash, .previous = Before(chain, index), .place = static_cast<int32_t>(index) + 1};
  {
    const std::lock_guard lock(mutex_);
    if (!status_.on || waiting_.contains(hash)) return true;
    if (const auto slot = index_.Find(hash)) {
      index_.Use(*slot, SlotOfLocked(write.previous));
      return true;
    }
    if (free_buffers_.empty()) return false;
    write.buffer = free_buffers_.back();
    free_buffers_.pop_back();
    waiting_.insert(hash);
  }
  std::memcpy(Buffer(write.buffer).data(), block.data(), block.size());
  {
    const std::lock_guard lock(mutex_);
    writes_.push_back(write);
  }
  changed_.notify_one();
  return true;
}

void DiskTier::CountDropped(int64_t blocks) {
  const std::lock_guard lock(mutex_);
  status_.blocks_dropped += blocks;
}

ReadId DiskTier::StartRead(std::span<const BlockHash> chain, size_t first,
                           std::vector<std::span<std::byte>> into) {
  BATON_CHECK(!into.empty() && first + into.size() <= chain.size(), "a read is of the chain");
  auto read = std::make_shared<Read>();
  const auto hashes = chain.subspan(first, into.size());
  read->hashes.assign(hashes.begin(), hashes.end());
  read->previous = Before(chain, first);
  read->into = std::move(into);
  {
    const std::lock_guard lock(mutex_);
    read->id = ++last_read_;
    reads_.push_back(read);
  }
  changed_.notify_one();
  return read->id;
}

int32_t DiskTier::CancelRead(ReadId id) {
  const std::lock_guard lock(mutex_);
  const auto is_it = [id](const auto& one) { return one.id == id; };
  if (const auto found = std::ranges::find_if(finished_, is_it); found != finished_.end()) {
    const int32_t blocks = found->blocks;
    finished_.erase(found);
    return blocks;
  }
  std::erase_if(reads_, [&is_it](const auto& read) { return is_it(*read); });
  if (reading_ == nullptr || reading_->id != id) return 0;
  const std::lock_guard read_lock(reading_->mutex);
  reading_->cancelled = true;
  return reading_->done;
}

std::vector<DiskTier::Finished> DiskTier::TakeFinished() {
  const std::lock_guard lock(mutex_);
  return std::exchange(finished_, {});
}

int64_t DiskTier::bytes_to_read() const {
  const std::lock_guard lock(mutex_);
  size_t blocks = reading_ == nullptr ? 0 : reading_->hashes.size();
  for (const auto& read : reads_) blocks += read->hashes.size();
  return static_cast<int64_t>(blocks) * block_bytes_;
}

void DiskTier::MeasureAgain() {
  {
    const std::lock_guard lock(mutex_);
    if (SystemClock().Now() - measured_at_ < kMeasureInterval) return;
    measure_ = true;
  }
  changed_.notify_one();
}

DiskTierStatus DiskTier::status() const {
  const std::lock_guard lock(mutex_);
  DiskTierStatus status = status_;
  status.blocks = index_.size();
  return status;
}

int32_t DiskTier::SlotOfLocked(const std::optional<BlockHash>& hash) const {
  const std::optional<int32_t> slot = hash ? index_.Find(*hash) : std::nullopt;
  return slot.value_or(SlotIndex::kNone);
}

void DiskTier::EnterLocked(const BlockFile::Record& record, int32_t place) {
  index_.Enter(record.slot, record.hash, record.previous);
  keys_[static_cast<size_t>(record.slot)] = KeyOfBlock(record.hash, place);
  if (journal_ != nullptr) journal_->Enter(CacheTier::kDisk, record.hash, place);
}

void DiskTier::ForgottenLocked(int32_t slot) {
  if (journal_ != nullptr) journal_->Leave(CacheTier::kDisk, keys_[static_cast<size_t>(slot)]);
}

bool DiskTier::AnswersLocked() const {
  return !busy_since_ || SystemClock().Now() - *busy_since_ < kStall;
}

void DiskTier::NoteRateLocked(int64_t bytes, Duration elapsed) {
  measured_at_ = SystemClock().Now();
  if (bytes < kLeastMeasuredBytes || elapsed <= Duration(0)) return;
  const double rate = static_cast<double>(bytes) / Seconds(elapsed);
  double& known = status_.bytes_per_s;
  known = known == 0 ? rate : kRateMemory * known + (1 - kRateMemory) * rate;
}

// ---- the tier's thread ----

void DiskTier::Run() {
  while (true) {
    switch (NextWork()) {
      case Work::kRead:
        DoRead();
        break;
      case Work::kWrite:
        DoWrite();
        break;
      case Work::kMeasure:
        DoMeasure();
        break;
      case Work::kEnd:
        return;
    }
  }
}

DiskTier::Work DiskTier::NextWork() {
  std::unique_lock lock(mutex_);
  busy_since_.reset();
  changed_.wait(lock, [this] {
    return closing_ || !reads_.empty() || !writes_.empty() || (measure_ && status_.on);
  });
  const bool late = closing_ && SystemClock().Now() >= close_deadline_;
  if (late || (closing_ && writes_.empty())) return Work::kEnd;
  busy_since_ = SystemClock().Now();
  if (!reads_.empty()) {
    reading_ = std::move(reads_.front());
    reads_.pop_front();
    return Work::kRead;
  }
  return writes_.empty() ? Work::kMeasure : Work::kWrite;
}

void DiskTier::DoRead() {
  const std::shared_ptr<Read> held = reading_;  // beyond the locks on it, when reading_ lets go
  Read& read = *held;
  const TimePoint begin = SystemClock().Now();
  const std::span<std::byte> staging(staging_.get(), static_cast<size_t>(block_bytes_));
  bool cancelled = false;
  int32_t blocks = 0;
  std::optional<BlockHash> previous = read.previous;
  for (size_t i = 0; i < read.hashes.size() && !cancelled; ++i) {
    if (!ReadBlock(read.hashes[i], previous, staging)) break;
    previous = read.hashes[i];
    const std::lock_guard lock(read.mutex);
    cancelled = read.cancelled;
    if (cancelled) break;
    std::memcpy(read.into[i].data(), staging.data(), staging.size());
    blocks = ++read.done;
  }
  {
    const std::lock_guard lock(mutex_);
    status_.blocks_read += blocks;
    NoteRateLocked(blocks * block_bytes_, SystemClock().Now() - begin);
    const std::lock_guard read_lock(read.mutex);
    cancelled = read.cancelled;
    if (!cancelled) finished_.push_back({read.id, blocks});
    reading_.reset();
  }
  if (!cancelled) on_read_();
}

// Reads and verifies one block. False, and the block is forgotten, when it is not sound.
bool DiskTier::ReadBlock(const BlockHash& hash, const std::optional<BlockHash>& previous,
                         std::span<std::byte> into) {
  int32_t slot = SlotIndex::kNone;
  int32_t previous_slot = SlotIndex::kNone;
  {
    const std::lock_guard lock(mutex_);
    busy_since_ = SystemClock().Now();
    slot = SlotOfLocked(hash);
    if (slot == SlotIndex::kNone || !status_.on) return false;
    previous_slot = SlotOfLocked(previous);
    index_.Use(slot, previous_slot);
  }
  absl::Status status = file_->Read(slot, hash, into);
  if (status.ok()) {
    status = file_->Use(slot, previous_slot);
    if (!status.ok()) SwitchOff(status);
    return true;
  }
  LogWarning(fmt::format("a KV block on disk is damaged, and will be computed again: {}",
                         status.ToString()));
  {
    const std::lock_guard lock(mutex_);
    index_.Forget(slot);
    ForgottenLocked(slot);
    ++status_.blocks_damaged;
  }
  if (const absl::Status erased = file_->Erase(slot); !erased.ok()) SwitchOff(erased);
  return false;
}

void DiskTier::DoWrite() {
  Write write;
  std::optional<SlotIndex::Taken> taken;
  BlockFile::Record record;
  {
    const std::lock_guard lock(mutex_);
    write = writes_.front();
    writes_.pop_front();
    if (!status_.on) {  // saved at the moment of switching off
      free_buffers_.push_back(write.buffer);
      return;
    }
    taken = index_.Take();
    BATON_CHECK(taken.has_value(), "only this write has a slot taken");
    if (taken->evicted) {
      ++status_.blocks_evicted;
      ForgottenLocked(taken->slot);
    }
    record = {taken->slot, write.hash, SlotOfLocked(write.previous)};
  }
  const absl::Status written = file_->Write(record, Buffer(write.buffer));
  {
    const std::lock_guard lock(mutex_);
    if (written.ok()) {
      ++status_.blocks_written;
      EnterLocked(record, write.place);
    } else {
      index_.Forget(record.slot);
    }
    waiting_.erase(write.hash);
    free_buffers_.push_back(write.buffer);
  }
  if (!written.ok()) SwitchOff(written);
}

// The rate of the disk itself, for what was used last: a restart's first prompts ask for that.
void DiskTier::DoMeasure() {
  const std::vector<BlockFile::Record> found = file_->Found();
  const TimePoint begin = SystemClock().Now();
  const std::span<std::byte> staging(staging_.get(), static_cast<size_t>(block_bytes_));
  int64_t bytes = 0;
  for (auto record = found.rbegin(); record != found.rend(); ++record) {
    if (bytes >= kMeasureBytes || SystemClock().Now() - begin >= kStall) break;
    {
      const std::lock_guard lock(mutex_);
      if (closing_ || !reads_.empty()) break;
      busy_since_ = SystemClock().Now();
    }
    file_->Uncache(record->slot);
    if (!file_->Read(record->slot, record->hash, staging).ok())
      continue;  // found when it is asked for
    bytes += block_bytes_;
  }
  const std::lock_guard lock(mutex_);
  measure_ = false;
  NoteRateLocked(bytes, SystemClock().Now() - begin);
}

void DiskTier::SwitchOff(const absl::Status& why) {
  {
    const std::lock_guard lock(mutex_);
    if (!status_.on) return;
    status_.on = false;
    status_.blocks_dropped += static_cast<int64_t>(writes_.size());
    for (const Write& write : writes_) free_buffers_.push_back(write.buffer);
    writes_.clear();
    waiting_.clear();
    if (journal_ != nullptr) journal_->LeaveAll(CacheTier::kDisk);
  }
  LogError(
      fmt::format("THE KV DISK CACHE IS OFF until the worker starts again: {}", why.ToString()));
}

}  // namespace baton::kv_disk
