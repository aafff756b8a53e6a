// Long work of the service: followed until it is over.

import { get } from "./socket.js";

const FOLLOW_MS = 400;
const UNDER_WAY = ["waiting", "running"];

export const isUnderWay = (task) => UNDER_WAY.includes(task.state);

/** The task as it is when it is over; `onProgress(task)` hears of it until then. */
export async function untilOver(task, onProgress) {
  while (isUnderWay(task)) {
    onProgress(task);
    await new Promise((resolve) => setTimeout(resolve, FOLLOW_MS));
    // A service out of reach for a moment has not given up the task; one that answers with a refusal has.
    task = await get(`/tasks/${task.id}`).catch((error) => (error.status ? { ...task, state: "failed", reason: error.message } : task));
  }
  return task;
}

/** Show how far a task is in a `<progress>`. */
export function showProgress(bar, { done, total }) {
  if (total) bar.value = done / total;
  else bar.removeAttribute("value");
}
