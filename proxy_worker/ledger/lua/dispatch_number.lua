-- The number that the next dispatch of a task has.
-- ARGV: task. Answers the number, or 0 for an unknown task.
local n = redis.call('HGET', task_key(ARGV[1]), 'n')
return n and tonumber(n) + 1 or 0
