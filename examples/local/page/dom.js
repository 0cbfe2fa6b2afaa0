/** Returns the element with an id. */
export const byId = (id) => document.getElementById(id);

/**
 * Returns a new element. Children are elements or strings; a string becomes text and is never parsed as HTML, because ids, names
 * and URLs come from strangers.
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, '');
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Sets an element's text, if it is another one. Setting the same text again would make screen readers repeat it. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets an attribute, if it has another value: a change that is none costs time in each frame. */
export function setAttribute(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/** Returns a function that calls another one in the next frame, once however often it was called before. */
export function oncePerFrame(draw) {
  let isAsked = false;
  return () => {
    if (isAsked) return;
    isAsked = true;
    requestAnimationFrame(() => {
      isAsked = false;
      draw();
    });
  };
}

const NUMBER = new Intl.NumberFormat('en');

/** Returns a number with separators: 12,345. */
export const count = (number) => NUMBER.format(number);

/** Returns a number with a noun: 1 event, 2 events. */
export const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? '' : 's'}`;
