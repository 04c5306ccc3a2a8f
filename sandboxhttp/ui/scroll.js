// Scrolling that follows what is written, and lets go when the reader scrolls up.

const near = 40; // px from the end that still count as "at the end"

/** Follower keeps a scroller at its end while its content grows, until the reader scrolls up. */
export class Follower {
  #scroller;
  #button;
  #stuck = true;
  #top = 0;

  constructor(scroller, content, button) {
    this.#scroller = scroller;
    this.#button = button;
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    scroller.addEventListener("wheel", (e) => e.deltaY < 0 && this.#release(), { passive: true });
    button.addEventListener("click", () => this.jump());
    const grown = new ResizeObserver(() => this.#grown());
    grown.observe(content);
    grown.observe(scroller); // a keyboard that opens takes room from it
  }

  /** jump goes to the end and follows again. */
  jump() {
    this.#stuck = true;
    this.#grown();
  }

  /** following reports whether what is written is followed. */
  get following() {
    return this.#stuck;
  }

  #gap() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    return scrollHeight - scrollTop - clientHeight;
  }

  // Growth below does not move scrollTop, so a smaller scrollTop away from the end is the reader's doing.
  #scrolled() {
    const { scrollTop } = this.#scroller;
    if (this.#gap() <= near) this.#stuck = true;
    else if (scrollTop < this.#top - 2) this.#stuck = false;
    this.#top = scrollTop;
    this.#show();
  }

  #release() {
    if (this.#scroller.scrollHeight > this.#scroller.clientHeight) this.#stuck = false;
    this.#show();
  }

  #grown() {
    if (this.#stuck) {
      this.#scroller.scrollTop = this.#scroller.scrollHeight;
      this.#top = this.#scroller.scrollTop;
    }
    this.#show();
  }

  #show() {
    this.#button.hidden = this.#stuck || this.#gap() <= near;
  }
}
