#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace baton::planner {

// Lower case, with '-' for '_', '.', ' ' and '/', so that "Llama_3.1-8B" finds "llama-3.1-8b".
std::string PlainName(std::string_view name);

// Index of `name` in `known` by plain names; -1 when it is none of them.
int FindName(std::string_view name, const std::vector<std::string>& known);

// "there is no model 'lama-3-70b'; nearest: llama-3-70b, ...; known: ...". `kind` is "model".
std::string UnknownName(std::string_view kind, std::string_view name,
                        const std::vector<std::string>& known);

}  // namespace baton::planner
