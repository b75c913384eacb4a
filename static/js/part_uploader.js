/**
 * Uppy's uploader for the site's protocol: a file goes in parts, and only parts that are missing are sent.
 *
 *     POST   create          -> where the parts go; for a file that was begun before, the same upload again
 *     GET    parts           -> what has arrived
 *     POST   parts/<n>/      -> a signed address for part n, which takes the bytes by PUT: on this site, or straight
 *                               into the bucket; signed with the part's SHA-256, it takes no other bytes
 *     POST   complete        -> the video's page
 *     DELETE abort           -> forgets it
 */
"use strict";

/** An error whose message is a sentence for people; `canRetry` when the same file may go through next time. */
class UploadError extends Error {
  constructor(message, { canRetry = true } = {}) {
    super(message);
    this.canRetry = canRetry;
  }
}

class PartUploader extends UppyBundle.BasePlugin {
  static MAX_TRIES = 6;
  // Browsers keep their cryptography from pages that are not secure, such as a laptop's in the local network.
  static #canHash = Boolean(globalThis.crypto?.subtle);

  #queue;

  constructor(uppy, opts) {
    super(uppy, opts);
    this.id = "PartUploader";
    this.type = "uploader";
    // One part of a file at a time: an interruption then costs at most one part.
    this.#queue = new UppyBundle.TaskQueue({ concurrency: opts.maxFilesInFlight });
  }

  install() {
    this.uppy.setState({ capabilities: { ...this.uppy.getState().capabilities, resumableUploads: true } });
    this.uppy.addUploader(this.#upload);
  }

  #upload = async (ids) => {
    const files = this.uppy.getFilesByIds(ids).filter((file) => !file.error && !file.progress.uploadComplete);
    this.uppy.emit("upload-start", files);
    await Promise.allSettled(files.map((file) => this.#uploadFile(file)));
  };

  /** Resolves when the file has arrived, failed or was removed; a pause gives its place in the queue away. */
  #uploadFile(file) {
    return new Promise((resolve) => {
      const job = { upload: null, controller: null, isOver: false };

      const onPause = (paused, isPaused) => {
        if (paused?.id !== file.id || job.isOver) return;
        if (isPaused) job.controller?.abort();
        else run();
      };
      const onRemoved = (removed) => {
        if (removed.id !== file.id || job.isOver) return;
        finish();
        job.controller?.abort();
        if (job.upload) this.#request("DELETE", job.upload.urls.abort).catch(() => {});
      };
      const finish = () => {
        job.isOver = true;
        this.uppy.off("upload-pause", onPause);
        this.uppy.off("file-removed", onRemoved);
        resolve();
      };
      const run = () => {
        const controller = new AbortController();
        job.controller = controller;
        this.#queue.add(async () => {
          if (job.isOver || controller.signal.aborted) return;
          try {
            const answer = await this.#send(file, job, controller.signal);
            finish();
            this.uppy.emit("upload-success", file, { status: 201, body: answer, uploadURL: answer.video_url });
          } catch (error) {
            if (job.isOver || error.name === "AbortError") return;
            finish();
            this.uppy.emit("upload-error", file, error);
          }
        });
      };

      this.uppy.on("upload-pause", onPause);
      this.uppy.on("file-removed", onRemoved);
      run();
    });
  }

  async #send(file, job, signal) {
    const size = file.data.size;
    const wanted = { file_name: file.name, size_bytes: size };
    if (PartUploader.#canHash) wanted.checksums = "sha256";
    job.upload = await this.#request("POST", this.opts.createUrl, wanted, signal);
    const { part_bytes: partBytes, urls } = job.upload;
    this.uppy.emit("part-uploader:begun", file, job.upload);

    const numParts = Math.ceil(size / partBytes);
    const etags = new Map();
    const sizeOf = (number) => Math.min(partBytes, size - (number - 1) * partBytes);
    for (const part of (await this.#request("GET", urls.parts, undefined, signal)).parts) {
      // A part that broke off on its way is sent again.
      if (part.Size === sizeOf(part.PartNumber)) etags.set(part.PartNumber, part.ETag);
    }
    const sum = () => [...etags.keys()].reduce((bytes, number) => bytes + sizeOf(number), 0);
    const report = (bytesOfThisPart) =>
      this.uppy.emit("upload-progress", file, {
        uploadStarted: file.progress.uploadStarted ?? Date.now(),
        bytesUploaded: sum() + bytesOfThisPart,
        bytesTotal: size,
      });

    report(0);
    for (let number = 1; number <= numParts; number++) {
      if (etags.has(number)) continue;
      const bytes = file.data.slice((number - 1) * partBytes, (number - 1) * partBytes + sizeOf(number));
      etags.set(number, await this.#sendPart(`${urls.parts}${number}/`, bytes, report, signal));
      report(0);
    }
    const parts = [...etags].sort(([a], [b]) => a - b).map(([PartNumber, ETag]) => ({ PartNumber, ETag }));
    return this.#request("POST", urls.complete, { parts }, signal);
  }

  /** Puts one part to a fresh signed address, and returns its tag. */
  #sendPart(signUrl, bytes, report, signal) {
    return this.#again(signal, async () => {
      const claim = PartUploader.#canHash ? { sha256: await this.#sha256(bytes) } : {};
      const signed = await this.#request("POST", signUrl, claim, signal);
      return new Promise((resolve, reject) => {
        const xhr = new XMLHttpRequest();
        xhr.open("PUT", signed.url);
        for (const [name, value] of Object.entries(signed.headers ?? {})) xhr.setRequestHeader(name, value);
        xhr.upload.onprogress = (event) => report(event.loaded);
        xhr.onload = () => {
          if (xhr.status < 200 || xhr.status > 299) reject(new RetryableError(`part: ${xhr.status}`));
          else resolve((xhr.getResponseHeader("ETag") ?? "").replaceAll('"', ""));
        };
        xhr.onerror = () => reject(new RetryableError("part: no connection"));
        xhr.onabort = () => reject(new DOMException("stopped", "AbortError"));
        signal.addEventListener("abort", () => xhr.abort(), { once: true });
        xhr.send(bytes);
      });
    });
  }

  /** The Base64 SHA-256 of one part, which is small enough for memory. */
  async #sha256(bytes) {
    let content;
    try {
      content = await bytes.arrayBuffer();
    } catch {
      throw new UploadError(this.opts.texts.unreadable);
    }
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
    return btoa(String.fromCharCode(...digest));
  }

  /** Asks the site; a refusal becomes an `UploadError` with the site's sentence. */
  #request(method, url, body, signal) {
    return this.#again(signal, async () => {
      let response;
      try {
        response = await fetch(url, {
          method,
          signal,
          headers: { "X-CSRFToken": this.opts.csrfToken, Accept: "application/json" },
          body: body === undefined ? undefined : JSON.stringify(body),
        });
      } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new RetryableError("no connection");
      }
      if (response.status >= 500 || response.status === 429) throw new RetryableError(`status ${response.status}`);
      if (response.redirected || response.status === 403) throw new UploadError(this.opts.texts.signedOut);
      const answer = response.status === 204 ? {} : await response.json().catch(() => ({}));
      if (!response.ok) throw new UploadError(answer.error || this.opts.texts.refused, { canRetry: !answer.error });
      return answer;
    });
  }

  /** Tries a few times with growing pauses; while the device is offline it waits without counting. */
  async #again(signal, attempt) {
    for (let tried = 1; ; tried++) {
      signal?.throwIfAborted();
      try {
        return await attempt();
      } catch (error) {
        if (!(error instanceof RetryableError)) throw error;
        if (tried >= PartUploader.MAX_TRIES) throw new UploadError(this.opts.texts.lost);
        if (!navigator.onLine) tried = 0;
        await this.#pause(Math.min(500 * 2 ** tried, 8000) * (0.75 + Math.random() / 2), signal);
      }
    }
  }

  #pause(milliseconds, signal) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(resolve, milliseconds);
      signal?.addEventListener("abort", () => {
        clearTimeout(timer);
        reject(new DOMException("stopped", "AbortError"));
      }, { once: true });
    });
  }
}

/** A fault of the connection or the server: the same request may succeed a moment later. */
class RetryableError extends Error {}
