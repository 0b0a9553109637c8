// Short names for what the page does all the time.

export const find = (id) => document.getElementById(id);

export function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text; // else a screen reader says it again
}

export function showError(field, text) {
  const place = find(`error-${field}`) ?? find("error-options");
  place.textContent = text;
  const input = find(field);
  if (input) input.setAttribute("aria-invalid", text ? "true" : "false");
}
