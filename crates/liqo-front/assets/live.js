// Follows the events of the page and replaces what has changed. The page is complete without this script.
const parts = () => document.querySelectorAll('[data-live][id]')
const follow = async () => {
  const answer = await fetch(location.href, { headers: { accept: 'text/html' } })
  if (!answer.ok) return location.reload()
  const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html')
  for (const old of parts()) {
    const now = fresh.getElementById(old.id)
    if (now && now.innerHTML !== old.innerHTML) old.innerHTML = now.innerHTML
  }
}
const source = document.querySelector('[data-events]')?.dataset.events
if (source) {
  let due
  const soon = () => { due ??= setTimeout(() => { due = undefined; follow() }, 200) }
  const events = new EventSource(source)
  events.addEventListener('change', soon)
  events.addEventListener('problem', () => { events.close(); location.reload() })
}
