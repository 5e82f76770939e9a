// Browsers refuse workers to pages that are opened from a disk. The search of this site runs in one,
// so there, and only there, a hidden frame of the page takes its place.
(() => {
  if (location.protocol !== "file:") return;

  // Runs in the frame: its messages go to the page, and scripts are loaded one after the other.
  function post(data) {
    parent.postMessage(data, "*");
  }
  async function load(...urls) {
    for (const url of urls) {
      await new Promise((done) => {
        const script = document.createElement("script");
        script.src = url;
        script.onload = done;
        document.body.appendChild(script);
      });
    }
  }

  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.url = String(url);
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.appendChild(this.frame);
      this.inside = this.frame.contentWindow;
      this.heard = (event) => {
        if (event.source !== this.inside) return;
        const message = new MessageEvent("message", { data: event.data });
        this.dispatchEvent(message);
        if (this.onmessage) this.onmessage(message);
      };
      addEventListener("message", this.heard);
      const page = this.inside.document;
      page.open();
      page.write(
        "<html><body><script>postMessage=" + post + ";importScripts=" + load + ";<\/script>" +
        "<script src=\"" + encodeURI(this.url) + "\"><\/script></body></html>",
      );
      page.close();
      this.ready = new Promise((done) => { this.inside.onload = done; });
    }

    postMessage(data) {
      this.ready.then(() => {
        this.inside.dispatchEvent(new MessageEvent("message", { data: structuredClone(data) }));
      });
    }

    terminate() {
      this.frame.remove();
      removeEventListener("message", this.heard);
    }
  };
})();
