-- A new task, ready to be dispatched. An id that is known already is left as it is.
-- ARGV: epoch, task, kind, title, takes_slot, caps(JSON), checkpoint. Answers 'ok', 'known' or 'stale'.
local epoch, id, kind, title, takes_slot, caps, checkpoint = unpack(ARGV)
if not epoch_is(epoch) then return {'stale'} end
local key = task_key(id)
if redis.call('EXISTS', key) == 1 then return {'known'} end
redis.call('HSET', key, 'kind', kind, 'title', title, 'takes_slot', takes_slot, 'caps', caps, 'state', 'ready',
  'since', stamp(now), 'n', 0, 'attempts', 0, 'lost', 0, 'died', 0, 'verdict', 'run', 'note', '')
if checkpoint ~= '' then redis.call('HSET', key, 'checkpoint', checkpoint) end
redis.call('SADD', TASKS, id)
return {'ok'}
