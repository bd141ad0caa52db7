-- Everything at one moment. Answers epoch, time, quiet seconds, tasks, proxies, caps, refused fences.
local times = timings()
local clock = ledger_time(times.tick_s or 0)
local tasks, proxies, caps = {}, {}, {}
for _, id in ipairs(redis.call('SMEMBERS', TASKS)) do
  local task = redis.call('HMGET', task_key(id), 'kind', 'title', 'state', 'n', 'lane', 'proxy', 'epoch', 'counter',
    'attempts', 'since', 'progress', 'verdict', 'note')
  task[14] = id
  tasks[#tasks + 1] = task
end
for _, name in ipairs(redis.call('SMEMBERS', PROXIES)) do
  local proxy = fields(proxy_key(name), 'registration', 'heartbeat', 'draining', 'left', 'lost_leases', 'note')
  local orders = redis.call('HMGET', orders_key(name), 'lanes', 'enabled', 'max_concurrent_tasks')
  local live = is_live(proxy, times.proxy_timeout_s or 0) and 1 or 0
  local age = stamp(now - tonumber(proxy.heartbeat))
  proxies[#proxies + 1] = {
    name, proxy.registration, live, proxy.draining, age, slots_used(name, clock), orders[1], orders[2], orders[3],
    tonumber(proxy.lost_leases or 0), proxy.note or '', proxy.left == '1' and 1 or 0,
  }
end
for _, cap in ipairs(redis.call('SMEMBERS', CAPS)) do
  caps[#caps + 1] = {cap, redis.call('SCARD', cap_key(cap))}
end
return {redis.call('HGET', META, 'epoch'), stamp(now), stamp(quiet_s(clock)), tasks, proxies, caps,
  tonumber(redis.call('HGET', META, 'refused_fences') or 0)}
