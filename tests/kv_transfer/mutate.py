#!/usr/bin/env python3
"""Writes copies of handoff sources that have known bugs, each switched on by its name
(active_mutant.h), for mutation_test.cc to look for. The sources themselves know nothing of it.

    mutate.py ROOM OUT TEST    ROOM/x.cc becomes OUT/x.cc; TEST must name every bug

A replacement whose original text is not there exactly once is an error: whoever changes that line
of the source decides here what its bug is now.
"""

import pathlib
import re
import sys

# (file, original, with the bug)
REPLACEMENTS = [
    # The source's machine.
    ("source_machine.cc",
     "  --sends_outstanding_;\n",
     "  --sends_outstanding_;\n"
     "  if (MutantIs(\"release_on_send_completion\") && state_ == State::kStreaming &&\n"
     "      commit_announced_ && sends_outstanding_ == 0 &&\n"
     "      pieces_pulled_ == pieces_wanted()) {\n"
     "    Drain(absl::OkStatus(), deadline_);\n"
     "    return;\n"
     "  }\n"),
    ("source_machine.cc",
     "  const int32_t end = std::min(count, block_count());\n",
     "  const int32_t end = std::min(count, block_count());\n"
     "  if (MutantIs(\"upper_layers_announced_with_the_lower\")) slices = this->slices();\n"),
    ("source_machine.cc",
     "  Send(std::move(ready));\n",
     "  Send(std::move(ready));\n"
     "  if (MutantIs(\"blocks_reused_before_release\") && commit_announced_) {\n"
     "    Drain(absl::OkStatus(), now);\n"
     "    return;\n"
     "  }\n"),
    ("source_machine.cc",
     "  if (state_ == State::kStreaming) deadline_ = now + config_.lease;\n",
     "  if (state_ == State::kStreaming && !MutantIs(\"lease_not_renewed\")) {\n"
     "    deadline_ = now + config_.lease;\n"
     "  }\n"),
    ("source_machine.cc",
     "  if (now < deadline_ || state_ == State::kDone) return;\n",
     "  if (now < deadline_ || state_ == State::kDone) return;\n"
     "  if (MutantIs(\"lease_never_over\") && state_ == State::kStreaming) return;\n"),
    ("source_machine.cc",
     "  if (state_ != State::kDraining || sends_outstanding_ > 0) return;\n",
     "  if (state_ != State::kDraining) return;\n"
     "  if (sends_outstanding_ > 0 && !MutantIs(\"blocks_let_go_while_being_sent\")) return;\n"),
    # Checksums that outlive a transfer.
    ("source_checksums.cc",
     "  if (!entry.known || entry.content != content) return std::nullopt;\n",
     "  if (!entry.known) return std::nullopt;\n"
     "  if (entry.content != content && !MutantIs(\"stale_checksum_announced\")) {\n"
     "    return std::nullopt;\n"
     "  }\n"),
    # The target's machine.
    ("target_machine.cc",
     "    if (found_checksum != piece.checksum) {\n",
     "    if (found_checksum != piece.checksum && !MutantIs(\"checksum_unchecked\")) {\n"),
    ("target_machine.cc",
     "  if (now >= deadline_) {\n",
     "  if (now >= deadline_ &&\n"
     "      !(MutantIs(\"silence_unnoticed\") && state_ == State::kPulling)) {\n"),
    ("target_machine.cc",
     "  if (!gap && in_flight_.empty()) deadline_ = now + config_.ready_timeout;\n",
     "  if ((!gap && in_flight_.empty()) || MutantIs(\"heartbeats_hide_loss\")) {\n"
     "    deadline_ = now + config_.ready_timeout;\n"
     "  }\n"),
    ("target_machine.cc",
     "  if (committed_ && landed_ == pieces_wanted()) End(absl::OkStatus());\n",
     "  if (committed_ && landed_ == pieces_wanted()) End(absl::OkStatus());\n"
     "  if (MutantIs(\"complete_when_announced\") && committed_ && known_ == pieces_wanted()) {\n"
     "    End(absl::OkStatus());\n"
     "  }\n"),
    # What the loop checks before a machine hears of anything.
    ("handoff_loop_events.cc",
     "  if (message.receiver != own_.incarnation) return;",
     "  if (message.receiver != own_.incarnation && !MutantIs(\"receiver_unchecked\")) return;"),
    ("handoff_loop_events.cc",
     "  const Message& message = *decoded;\n",
     "  Message message = *decoded;\n"
     "  if (MutantIs(\"epoch_unchecked\") && std::holds_alternative<ReadyMessage>(message.body)) {\n"
     "    for (const auto& [live, transfer] : targets_) {\n"
     "      if (live.request == message.attempt.request) message.attempt = live;\n"
     "    }\n"
     "  }\n"),
    ("handoff_loop_events.cc",
     "found->second->peer_incarnation != message.sender) return nullptr;\n",
     "(found->second->peer_incarnation != message.sender &&\n"
     "    !MutantIs(\"sender_unchecked_by_source\"))) return nullptr;\n"),
    ("handoff_loop_events.cc",
     "found->second->peer_incarnation != sender) return nullptr;\n",
     "(found->second->peer_incarnation != sender &&\n"
     "    !MutantIs(\"sender_unchecked_by_target\"))) return nullptr;\n"),
    ("handoff_loop_events.cc",
     "  if (!fence_.Admit(attempt)) {\n",
     "  if (!fence_.Admit(attempt) &&\n"
     "      !(MutantIs(\"old_epoch_offer_admitted\") && *newest > attempt.epoch) &&\n"
     "      !(MutantIs(\"repeated_offer_admitted\") && *newest == attempt.epoch)) {\n"),
    ("handoff_loop_events.cc",
     "  if (fence_.Admit(message.attempt)) EndOlderEpochs(message.attempt);\n",
     "  if (!MutantIs(\"cancel_before_offer_forgotten\") && fence_.Admit(message.attempt)) {\n"
     "    EndOlderEpochs(message.attempt);\n"
     "  }\n"),
    ("handoff_loop_events.cc",
     "void HandoffLoop::EndOlderEpochs(const Attempt& attempt) {\n",
     "void HandoffLoop::EndOlderEpochs(const Attempt& attempt) {\n"
     "  if (MutantIs(\"older_epoch_goes_on\")) return;\n"),
]


def mutated(room, replacements):
    """{file: text with all its bugs}; raises ValueError where one does not fit."""
    texts = {}
    for name, original, bug in replacements:
        text = texts.get(name) or (room / name).read_text()
        if text.count(original) != 1:
            raise ValueError(f"kv_transfer/{name} has {text.count(original)} times, not once:\n"
                             f"{original}")
        texts[name] = text.replace(original, bug)
    return {name: '#include "tests/kv_transfer/active_mutant.h"\n' + text
            for name, text in texts.items()}


def main():
    room, out, test = map(pathlib.Path, sys.argv[1:])
    try:
        texts = mutated(room, REPLACEMENTS)
    except ValueError as error:
        sys.exit(f"mutate.py: {error}")
    sought = test.read_text()
    for name in re.findall(r'MutantIs\("(\w+)"\)', "".join(texts.values())):
        if f'"{name}"' not in sought:
            sys.exit(f"mutate.py: {test.name} does not look for {name}")
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (out / name).write_text(text)


if __name__ == "__main__":
    main()
