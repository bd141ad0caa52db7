-- A proxy starts. A live namesake keeps the name, unless it is a former life that is proven over: the same
-- instance, whose host lock the new life holds. What that one held is given back at once, and so is what was
-- announced to this proxy alone: the life that is over may have taken the message.
-- ARGV: proxy, instance, life, lock, registration(JSON). Answers 'ok' with the tasks given back, or 'taken' with
-- the holder's site, its instance, and the age of its last heartbeat.
local name, instance, life, lock, registration = unpack(ARGV)
local times = timings()
local former = fields(proxy_key(name), 'instance', 'life', 'lock', 'registration', 'heartbeat', 'left')
local same_instance = former.instance == instance
local proven_over = same_instance and former.lock == lock and lock ~= ''
if former.life and former.life ~= life and not proven_over and is_live(former, times.proxy_timeout_s or 15) then
  local site = cjson.decode(former.registration).site
  return {'taken', site, former.instance, stamp(now - tonumber(former.heartbeat))}
end

local freed = {}
if former.life and former.life ~= life then freed = take_back_from(name, name .. ' was restarted') end
if proven_over and former.life ~= life then
  for _, id in ipairs(redis.call('ZRANGE', LEASES, 0, -1)) do
    local task = fields(task_key(id), 'proxy', 'life')
    if task.proxy == name and task.life == former.life then
      lose_holder(id, name .. ' was restarted', false)
      freed[#freed + 1] = id
    end
  end
end
redis.call('SADD', PROXIES, name)
redis.call('HSET', proxy_key(name), 'registration', registration, 'instance', instance, 'life', life, 'lock', lock,
  'heartbeat', stamp(now), 'draining', 0, 'note', '', 'left', 0)
ring()
return {'ok', freed}
