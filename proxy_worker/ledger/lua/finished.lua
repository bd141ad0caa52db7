-- Tasks that ended and are not acknowledged, oldest first.
-- ARGV: how many at most.
local ended = {}
for _, id in ipairs(redis.call('ZRANGE', FINISHED, 0, tonumber(ARGV[1]) - 1)) do
  local task = redis.call('HMGET', task_key(id), 'kind', 'title', 'state', 'epoch', 'counter', 'proxy', 'attempts',
    'started_at', 'ended_at', 'outcome', 'checkpoint', 'note', 'history', 'quarantined', 'log')
  task[16] = id
  ended[#ended + 1] = task
end
return ended
