/* SPDX-License-Identifier: GPL-2.0 */
#define __init __attribute__((section(".init.text")))
#define __exit __attribute__((section(".exit.text")))
