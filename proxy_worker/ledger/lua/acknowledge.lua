-- Forget tasks that ended. Others, and unknown ones, are left alone.
-- ARGV: epoch, tasks. Answers 'ok' or 'stale'.
if not epoch_is(ARGV[1]) then return {'stale'} end
for i = 2, #ARGV do
  if redis.call('ZREM', FINISHED, ARGV[i]) == 1 then redis.call('DEL', task_key(ARGV[i])) end
end
return {'ok'}
