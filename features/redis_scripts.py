"""What Redis does in one step, in Lua, and the bytes that it works on.

A customer is one string, and so is the market: the packed states of all views, one after the other, each with a head.
So one MGET reads all views of many customers at one moment, and one script call guards and writes a block of rows.
"""

from __future__ import annotations

import struct

HEAD = struct.Struct("<HIIqq")
"""Number of the view, bytes of its numbers, bytes of its texts (0: none), event and created time (microseconds)."""

# Lua counts in float64: times are compared as two halves each, so that none is rounded.
_HEAD = '"<HI4I4I4i4I4i4"'

WRITE = f"""
local function later(event_high, event_low, created_high, created_low, old)
    if event_high ~= old[2] then return event_high > old[2] end
    if event_low ~= old[1] then return event_low > old[1] end
    if created_high ~= old[4] then return created_high > old[4] end
    return created_low >= old[3]
end
for i, key in ipairs(KEYS) do
    local new, old = ARGV[i], redis.call("GET", key)
    if not old then
        redis.call("SET", key, new)
    else
        local number, _, _, event_low, event_high, created_low, created_high = struct.unpack({_HEAD}, new)
        local at, size, found = 1, #old, false
        while at <= size and not found do
            local there, numbers, texts, a, b, c, d = struct.unpack({_HEAD}, old, at)
            local after = at + {HEAD.size} + numbers + texts
            found = there == number
            if found and later(event_high, event_low, created_high, created_low, {{a, b, c, d}}) then
                if after - at == #new then
                    redis.call("SETRANGE", key, at - 1, new)
                else
                    redis.call("SET", key, string.sub(old, 1, at - 1) .. new .. string.sub(old, after))
                end
            end
            at = after
        end
        if not found then redis.call("SET", key, old .. new) end
    end
end
"""
"""KEYS: customers; ARGV: the packed state of each, in one view. A state that is older than what is there changes
nothing: a late event never undoes a later one; of two with one event time, the one that became known later stays."""

DROP = f"""
local number = tonumber(ARGV[1])
for _, key in ipairs(KEYS) do
    local old, at = redis.call("GET", key) or "", 1
    while at <= #old do
        local there, numbers, texts = struct.unpack("<HI4I4", old, at)
        local after = at + {HEAD.size} + numbers + texts
        if there == number then
            local left = string.sub(old, 1, at - 1) .. string.sub(old, after)
            if #left > 0 then redis.call("SET", key, left) else redis.call("DEL", key) end
            break
        end
        at = after
    end
end
"""
"""KEYS: customers; ARGV: the number of a view, whose states they lose."""

DEFINE = """
local held = redis.call("HGET", KEYS[1], ARGV[1])
if held then
    local there = cjson.decode(held)
    if there.fingerprint == ARGV[2] then return 0 end
    redis.call("SETBIT", KEYS[2], there.number, 0)
end
local number = redis.call("HINCRBY", KEYS[1], "", 1)
local entry = {number = number, fingerprint = ARGV[2], layout = ARGV[3]}
redis.call("HSET", KEYS[1], ARGV[1], cjson.encode(entry))
return held and cjson.decode(held).number or 0
"""
"""KEYS: the views and which of them are loaded; ARGV: a view's name, fingerprint and layout. The number of a view
is never used twice. Returns the number that the view had before, with other columns; 0 for none."""
