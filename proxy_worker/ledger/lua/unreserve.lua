-- Give up a pair whose second task's proxy went away before the first was ready for it: both are ready again.
-- ARGV: epoch, the second task, why. Answers 'ok' or 'stale'.
local epoch, id, note = unpack(ARGV)
if not epoch_is(epoch) then return {'stale'} end
if redis.call('HGET', task_key(id), 'state') == 'reserved' then make_ready(id, note) end
return {'ok'}
