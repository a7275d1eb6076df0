// Follows the events of the page and replaces what has changed. The page is complete without this script.
const PAUSE = 5000
const source = document.querySelector('[data-events]')?.dataset.events
const say = word => { document.getElementById('follows').textContent = word }
const follow = async () => {
  const answer = await fetch(location.href, { headers: { accept: 'text/html' } })
  // The page says so itself when the token has ended or a right is lost.
  if ([401, 403].includes(answer.status)) return location.reload()
  if (!answer.ok) throw new Error(answer.statusText)
  const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html')
  for (const old of document.querySelectorAll('[data-live][id]')) {
    const now = fresh.getElementById(old.id)
    if (now && now.innerHTML !== old.innerHTML) old.innerHTML = now.innerHTML
  }
}
let due
const soon = (pause = 200) => {
  due ??= setTimeout(() => { due = undefined; follow().catch(() => { say('not live, '); soon(PAUSE) }) }, pause)
}
const listen = () => {
  const events = new EventSource(source)
  const again = () => { say('not live, '); events.close(); soon(); setTimeout(listen, PAUSE) }
  events.addEventListener('open', () => say('live, '))
  // What changed before the stream began is not in the stream.
  events.addEventListener('begin', () => soon())
  events.addEventListener('change', () => soon())
  events.addEventListener('problem', again)
  // The browser connects again by itself, unless the answer was a refusal.
  events.addEventListener('error', () => { if (events.readyState === EventSource.CLOSED) again() })
}
if (source) listen()
