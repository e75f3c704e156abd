-- How the projection lies in Redis. Every script begins with this file; KEYS[1] is the marker, ARGV[1] the key prefix.
--
-- All names begin with the prefix and the number of this layout:
--
--   epoch                              the sequence up to which everything is projected; absent: rebuild
--   rebuild                            a token planted when the marker was found absent
--   row:<ulid>                         one header line, then the view
--   agent:<owner>:<agent>              zsets, score = accept sequence, member = ulid; the owner is the receiving one
--   agent:<owner>:<agent>:<state>
--   owner:<owner>
--   owner:<owner>:state:<state>
--   owner:<owner>:channel:<channel>
--   sender:<sender owner>:<sender agent>
--   thread:<thread>                    only of threads with an answer: the first message is found by its row
--
-- A row is one string and not a hash: a view is longer than 64 bytes, so a hash would cost a table entry per field.
local prefix = ARGV[1] .. '2:'
local HEADER_BYTES = 384 -- two sequences, two owners of 63, three ids, channel, state and two numbers: less than 320

local function header_of(text)
  local seq, accept_seq, owner, agent, sender_owner, sender, channel, state, thread, priority, accepted_ms =
    string.match(text, '^(%d+) (%d+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%d) (%d+)\n')
  if not seq then return nil end
  return {
    seq = tonumber(seq), accept_seq = accept_seq, owner = owner, agent = agent,
    sender_owner = sender_owner, sender = sender, channel = channel, state = state,
    thread = thread, priority = priority, accepted_ms = accepted_ms,
  }
end

local function row_key(ulid) return prefix .. 'row:' .. ulid end

local function agent_key(owner, agent) return prefix .. 'agent:' .. owner .. ':' .. agent end

local function agent_state_key(owner, agent, state) return agent_key(owner, agent) .. ':' .. state end

local function owner_key(owner) return prefix .. 'owner:' .. owner end

local function owner_state_key(owner, state) return owner_key(owner) .. ':state:' .. state end

local function owner_channel_key(owner, channel) return owner_key(owner) .. ':channel:' .. channel end

local function sender_key(owner, agent) return prefix .. 'sender:' .. owner .. ':' .. agent end

local function thread_key(thread) return prefix .. 'thread:' .. thread end

-- The thread is named by its first message.
local function first_of(thread) return string.sub(thread, 5) end
